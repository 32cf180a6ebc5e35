/** Runs once: no agent takes part. */

import { readFileSync, writeFileSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { command } from '../support/command.ts';
import { makeHost } from '../support/host.ts';
import { suites } from '../support/plugin.ts';

const bridge = {
  type: 'bridge',
  bridge: 'cni0',
  isGateway: true,
  ipMasq: true,
  ipam: { type: 'host-local', subnet: '10.88.0.0/16', routes: [{ dst: '0.0.0.0/0' }] },
};
const portmap = { type: 'portmap', capabilities: { portMappings: true } };

/** The cost of a run of the command, which must not be higher on a host with many pods. */
interface Cost {
  programs: number;
  /** Lists that the command itself asked the kernel for, in the host's namespace and in those of pods. */
  dumps: number;
  /** Readings of directories. */
  directories: number;
}

/** A host to which pods are added, and what `cni` costs there. */
async function hostWith(t: ExecutionContext, plugins: object[]) {
  const host = await makeHost(t);
  const env = { CNI_PATH: suites.ours };
  writeFileSync(
    host.file('/etc/cni/net.d/10-podnet.conflist'),
    JSON.stringify({ cniVersion: '1.0.0', name: 'podnet', plugins }),
  );
  let pods = 0;
  const addPods = async (count: number) => {
    for (let i = 0; i < count; i++) {
      const portMappings = [{ hostPort: 8080 + pods++, containerPort: 80, protocol: 'tcp' }];
      await host.run([command, 'add', 'podnet', (await host.addPod()).netns], {
        env: { ...env, CAP_ARGS: JSON.stringify({ portMappings }) },
      });
    }
  };
  const costOf = async (...args: string[]): Promise<Cost> => {
    const file = host.file('/run/trace');
    const strace = ['strace', '-f', '-qq', '-e', 'trace=execve,sendto,getdents64', '-o', '/run/trace'];
    await host.run([...strace, command, ...args], { env });
    const lines = readFileSync(file, 'utf8').split('\n');
    const count = (pattern: RegExp) => lines.filter((line) => pattern.test(line)).length;
    const [own] = lines[0]!.split(' ');
    return {
      programs: count(/ (?:execve\(|<... execve resumed>).* = 0$/),
      // In another namespace than its own, strace does not know what the numbers mean.
      dumps: count(new RegExp(`^${own} .*sendto\\(.*nlmsg_flags=[^,]*(?:NLM_F_DUMP|0x300)\\b`)),
      directories: count(/ getdents64\(/),
    };
  };
  return { addPods, costOf };
}

for (const [firewall, plugins, ownDumps] of [
  // The addresses and the routes of a pod, in its own namespace.
  ['iptables', [bridge, portmap, { type: 'firewall', backend: 'iptables' }], 2],
  // Besides them, the two chains that check its MAC address.
  [
    'nftables',
    [
      { ...bridge, ipMasqBackend: 'nftables', macspoofchk: true },
      { ...portmap, backend: 'nftables' },
      { type: 'firewall', backend: 'nftables' },
    ],
    4,
  ],
] as const)
  test(`with ${firewall}, what all pods share is looked at once, however many there are`, async (t) => {
    const { addPods, costOf } = await hostWith(t, [...plugins]);
    await addPods(2);
    const [list, draw, networks] = [
      await costOf('list'),
      await costOf('draw'),
      await costOf('network', 'ls'),
    ];
    t.true(list.programs > 0 && list.dumps >= 2 * ownDumps && list.directories > 0);
    await addPods(3);
    t.deepEqual(await costOf('list'), { ...list, dumps: list.dumps + 3 * ownDumps });
    t.deepEqual(await costOf('draw'), { ...draw, dumps: draw.dumps + 3 * ownDumps });
    t.deepEqual(await costOf('network', 'ls'), networks);
  });
