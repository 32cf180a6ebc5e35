/**
 * What a repair meets besides rules that are gone: others at work, other suites, damage it cannot mend.
 * Runs once: no agent takes part.
 */

import { writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { waitsForProgram } from '../support/firewall.ts';
import type { Host, Pod } from '../support/host.ts';
import { files, links, snapshot } from '../support/observe.ts';
import { type Operator, operatorOf } from '../support/operator.ts';
import { suites } from '../support/plugin.ts';
import { cleanEnv } from '../support/run.ts';

const bridge = {
  type: 'bridge',
  bridge: 'br0',
  isDefaultGateway: true,
  ipMasq: true,
  ipam: { type: 'host-local', subnet: '10.5.0.0/24' },
};
const portmap = { type: 'portmap', capabilities: { portMappings: true } };
const plugins = [bridge, portmap, { type: 'firewall' }];
const flush = ['nft', 'flush', 'ruleset'];

/** What is left on a host once its pods are gone, without hints that have rules by their handles. */
async function remains(host: Host): Promise<object> {
  const { sandboxes: _, ruleset: __, files, ...rest } = await snapshot(host);
  const rules = await host.run(['sh', '-c', 'iptables-save | grep "^-A" | sort']);
  const lasting = Object.entries(files as object).filter(([path]) => !path.startsWith('/run/cni/iptables/'));
  return { ...rest, rules, files: lasting };
}

/**
 * Runs a script at the very moment at which rules of a port are about to be restored.
 * @returns the environment for that.
 */
async function justBefore(host: Host, script: string): Promise<NodeJS.ProcessEnv> {
  const hook = `#!/bin/sh
    cat > /run/hook/stdin.$$
    if grep -q -e "-N CNI-DN" /run/hook/stdin.$$ && mkdir /run/hook/done; then
      (export PATH=${cleanEnv.PATH}; ${script}) > /run/hook/output 2>&1
    fi
    exec /usr/sbin/\${0##*/} "$@" < /run/hook/stdin.$$\n`;
  await host.run(['mkdir', '/run/hook']);
  writeFileSync(host.file('/run/hook/xtables-nft-hook'), hook, { mode: 0o755 });
  await host.run(['ln', '-s', 'xtables-nft-hook', '/run/hook/iptables-restore']);
  return { PATH: `/run/hook:${cleanEnv.PATH}` };
}

const command = join(suites.ours, 'cni');
/** As a DEL of a suite that does not wait for programs: those of the repair wait for this DEL. */
const unawaited = `rm -f /run/cni/programs.lock; ${command}`;
const nameOf = ({ host }: Operator) =>
  Object.keys(files(host, '/var/lib/cni/results'))[0]!.replace(/^.*(cnitool-\w{4}).*$/, '$1');

/** A host with a pod whose rules are gone, and what remained of the one before it. */
async function podWithoutRules(t: ExecutionContext) {
  const operator = await operatorOf(t, plugins);
  await operator.del(await operator.add());
  const empty = await remains(operator.host);
  const pod = await operator.add();
  await operator.host.run(flush);
  return { operator, pod, empty };
}

test('a pod that is deleted while it is repaired does not come back', async (t) => {
  const { operator, pod, empty } = await podWithoutRules(t);
  const { host, tryCni } = operator;
  const env = await justBefore(host, `${unawaited} del net ${pod.netns}`);
  const repaired = await tryCni(['repair'], env);
  t.is(repaired.exit, 0, repaired.stderr);
  t.regex(
    repaired.stdout,
    /^Deleted meanwhile: pod-\w+ on net \(eth0, 10\.5\.0\.\d+\)\n0 attachments repaired, 0 intact\.\n$/,
  );
  // That restores what pods share.
  await operator.del(await operator.add());
  t.deepEqual(await remains(host), empty);
});

test('a pod does not come back either whose DEL ends long after it was repaired', async (t) => {
  const { operator, pod, empty } = await podWithoutRules(t);
  const { host, tryCni } = operator;
  await host.run(['mkdir', '/run/slow']);
  for (const name of ['portmap', 'firewall', 'host-local'])
    await host.run(['ln', '-s', join(suites.ours, name), `/run/slow/${name}`]);
  const slow = `#!/bin/sh\n${suites.ours}/bridge || exit\ntouch /run/hook/gone\nsleep 3\n`;
  writeFileSync(host.file('/run/slow/bridge'), slow, { mode: 0o755 });
  const script = `export CNI_PATH=/run/slow; ${unawaited} del net ${pod.netns} &
    until [ -e /run/hook/gone ]; do sleep 0.1; done`;
  const env = await justBefore(host, script);
  const repaired = await tryCni(['repair'], env);
  t.is(repaired.exit, 0, repaired.stdout + repaired.stderr);
  t.regex(repaired.stdout, /^Deleted meanwhile: pod-\w+ on net /);
  await operator.del(await operator.add());
  t.deepEqual(await remains(host), empty);
});

test('a pod that is deleted and added again while it is repaired stays', async (t) => {
  const { operator, pod, empty } = await podWithoutRules(t);
  const { host, cni, tryCni } = operator;
  const script = `${unawaited} del net ${pod.netns} && ${command} add net ${pod.netns}`;
  const CAP_ARGS = JSON.stringify({ portMappings: [{ hostPort: 8080, containerPort: 80 }] });
  const env = { ...(await justBefore(host, script)), CAP_ARGS };
  await tryCni(['repair'], env);
  await cni(['check', 'net', pod.netns], { CAP_ARGS });
  t.regex(await cni(['repair']), /^0 attachments repaired, 1 intact\.\n$/);
  await operator.del(pod);
  t.deepEqual(await remains(host), empty);
});

test('DEL waits for what a repair that was killed has started', async (t) => {
  const { operator, pod, empty } = await podWithoutRules(t);
  const { host, tryCni } = operator;
  const script = 'kill -9 $PPID; until [ -e /run/go ]; do sleep 0.05; done';
  t.is((await tryCni(['repair'], await justBefore(host, script))).exit, 'SIGKILL');
  await waitsForProgram(t, host, () => operator.del(pod));
  await operator.del(await operator.add());
  t.deepEqual(await remains(host), empty);
});

test('rules of a pod that the reference plugin has added are not doubled', async (t) => {
  const ranges = [[{ subnet: '10.5.0.0/24' }], [{ subnet: 'fd00:5::/64' }]];
  const dual = { ...bridge, ipam: { type: 'host-local', ranges } };
  const operator = await operatorOf(t, [dual, { type: 'firewall', backend: 'iptables' }]);
  const { host, cni } = operator;
  const pod = await operator.add();
  const accepting = async () =>
    (await host.run(['sh', '-c', 'iptables-save -t filter; ip6tables-save -t filter']))
      .split('\n')
      .filter((rule) => /^-A CNI-FORWARD .*-j ACCEPT$/.test(rule));
  const before = await accepting();
  t.is(before.length, 4);
  // It notes nothing.
  await host.run(['rm', '-r', '/run/cni/firewall']);
  await host.run(['iptables', '-F', 'FORWARD']);
  t.regex(await cni(['repair']), /1 attachment repaired/);
  t.deepEqual(await accepting(), before);
  await operator.del(pod);
  t.deepEqual(await accepting(), []);
});

test('pods come and go while rules are lost and repaired, and nothing of them stays', async (t) => {
  const operator = await operatorOf(t, plugins);
  const { host, cni, tryCni } = operator;
  await operator.del(await operator.add());
  const empty = await remains(host);
  const living = await operator.add(9000);
  let isOver = false;
  const repairing = (async () => {
    const exits: unknown[] = [];
    while (!isOver) {
      await host.run(['sh', '-c', 'iptables -t nat -F; iptables -F']);
      exits.push((await tryCni(['repair'])).exit);
    }
    return exits;
  })();
  const cycle = async (hostPort: number) => {
    for (let i = 0; i < 3; i++) {
      const pod: Pod = await operator.add(hostPort);
      await operator.del(pod, hostPort);
      await pod.remove();
    }
  };
  const cycles = await Promise.allSettled([8081, 8082, 8083].map(cycle));
  isOver = true;
  const exits = await repairing;
  t.deepEqual(
    cycles.map((one) => (one.status === 'rejected' ? String(one.reason) : 'done')),
    ['done', 'done', 'done'],
  );
  t.true(exits.length > 0);
  await tryCni(['repair']);
  await cni(['check', 'net', living.netns], {
    CAP_ARGS: JSON.stringify({ portMappings: [{ hostPort: 9000, containerPort: 80 }] }),
  });
  await operator.del(living, 9000);
  t.deepEqual(await remains(host), empty);
});

test('what belongs to another pod by now, or is gone for good, is said, and the rest is repaired', async (t) => {
  const operator = await operatorOf(t, plugins);
  const { host, tryCni } = operator;
  await operator.add(8080);
  await host.run(flush);
  const thief = await operator.add(8080);
  const repaired = await tryCni(['repair']);
  t.is(repaired.exit, 1);
  t.regex(
    repaired.stdout,
    /Restored: pod-\w+ on net .*\n(?: {2}.*\n)*Still missing: .*\n(?: {2}.*\n)*Still broken: /,
  );
  t.regex(
    repaired.stdout,
    /Plugin "portmap": Port 8080\/tcp of the host is taken by container "cnitool-\w+" on network "net"/,
  );
  t.regex(repaired.stdout, /0 attachments repaired, 1 still broken, 1 intact\./);
  await operator.del(thief);
  t.is((await tryCni(['repair'])).exit, 0, 'the port is free');

  const [veth] = (await links(host)).filter(({ ifname }) => ifname.startsWith('veth'));
  await host.run(['ip', 'link', 'del', veth!.ifname]);
  for (const args of [['repair'], ['repair', '--dry-run']]) {
    const gone = await tryCni(args);
    t.is(gone.exit, 1);
    t.regex(
      gone.stdout,
      /Plugin "bridge": Sandbox "\S+" does not have interface "eth0" of this attachment\. Delete the container and add it again/,
    );
  }
});

test('pods whose namespace is gone, and plugins of other suites, are left alone and named', async (t) => {
  const operator = await operatorOf(t, plugins);
  const { host, tryCni } = operator;
  const [pod, gone] = [await operator.add(8080), await operator.add(8081)];
  await gone.remove();
  await host.run(['mkdir', '/run/mixed']);
  for (const name of ['bridge', 'firewall', 'host-local'])
    await host.run(['ln', '-s', join(suites.ours, name), `/run/mixed/${name}`]);
  await host.run(['cp', join(suites.reference, 'portmap'), '/run/mixed/portmap']);
  await host.run(['iptables', '-t', 'nat', '-F']);
  const mixed = await tryCni(['repair'], { CNI_PATH: '/run/mixed' });
  t.is(mixed.exit, 1);
  t.regex(
    mixed.stdout,
    /Still broken: .*\n {2}Plugin "portmap" failed CHECK.*\n(?: {2}.*\n)* {2}Of another suite, and left alone: "portmap"/,
  );
  t.regex(mixed.stdout, /^Left to "cni gc": .*: its network namespace is gone$/m);
  t.regex(mixed.stdout, /0 attachments repaired, 1 still broken, 0 intact, 1 left to "cni gc"\./);
  const own = await tryCni(['repair']);
  t.is(own.exit, 0, own.stdout);
  t.regex(own.stdout, /1 attachment repaired, 0 intact, 1 left to "cni gc"\./);
  t.notRegex(await host.run(['iptables-save']), /8081/);
  await operator.del(pod);
});

test('networks, pods and containers are chosen by name, and broken records are no obstacle', async (t) => {
  const operator = await operatorOf(t, plugins);
  const { host, tryCni } = operator;
  const pod = await operator.add();
  const container = nameOf(operator);
  for (const [name, content] of [
    ['net-torn-eth0', '{"kind":"cniCacheV1","containerId":"to'],
    [
      'net-odd-eth0',
      '{"kind":"cniCacheV1","containerId":"odd","ifName":"eth0","networkName":"net","config":"e30="}',
    ],
  ] as const)
    writeFileSync(host.file(`/var/lib/cni/results/${name}`), content);
  for (const name of ['net', container, pod.name]) {
    await host.run(flush);
    const { exit, stdout, stderr } = await tryCni(['repair', name]);
    t.is(exit, 1, 'a record cannot be read');
    t.regex(stdout, new RegExp(`^Restored: ${pod.name} on net`), name);
    t.regex(stderr, /net-torn-eth0" is not JSON/);
    t.notRegex(stdout + stderr, / at .*\.ts:/);
  }
  const odd = await tryCni(['repair', 'odd']);
  t.is(odd.exit, 1);
  t.regex(
    odd.stdout,
    /Cannot be repaired|Still broken: odd on net \(eth0\)\n {2}The runtime has recorded no configuration or result/,
  );
  const unknown = await tryCni(['repair', 'none-such']);
  t.is(unknown.exit, 1);
  t.regex(
    unknown.stderr,
    /Nothing on this host is called "none-such"\. Give a network, a pod or a container ID/,
  );
  t.is((await tryCni(['repair', '--frob'])).exit, 2);
});
