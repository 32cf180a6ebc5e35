/**
 * ADD at the mercy of the kernel: whichever request fails, what was done before it is undone, and a living
 * attachment is not hurt.
 */

import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { Attachment, attach, type Conflist, type PluginConf } from '../support/chain.ts';
import { type Host, makeHostWithDevices } from '../support/host.ts';
import { link, networkSnapshot, snapshot, sysctl } from '../support/observe.ts';
import { addEnvironment, type PrintedError, suites } from '../support/plugin.ts';

const hostLocal = {
  type: 'host-local',
  ranges: [[{ subnet: '10.31.0.0/24' }], [{ subnet: 'fd00:31::/64' }]],
  routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
};

const networks: Record<string, PluginConf> = {
  bridge: {
    type: 'bridge',
    bridge: 'br0',
    isGateway: true,
    ipMasq: true,
    hairpinMode: true,
    ipam: hostLocal,
  },
  'bridge with nftables': {
    type: 'bridge',
    bridge: 'br0',
    isGateway: true,
    ipMasq: true,
    ipMasqBackend: 'nftables',
    macspoofchk: true,
    ipam: hostLocal,
  },
  ptp: { type: 'ptp', ipMasq: true, ipam: hostLocal },
  macvlan: { type: 'macvlan', master: 'up0', ipam: hostLocal },
  'host-device': { type: 'host-device', device: 'dev0', ipam: hostLocal },
};

function networkOf(plugin: PluginConf): Conflist {
  return { cniVersion: '1.1.0', name: 'faults', plugins: [plugin] };
}

/**
 * ADD in which one system call fails.
 * @param inject for strace(1), such as "sendto:error=ENOBUFS:when=3".
 * @returns how it ended, and whether the call was reached at all.
 */
async function addWithFault(
  t: ExecutionContext,
  host: Host,
  attachment: Attachment,
  inject: string,
): Promise<{ exit: number | string; error: PrintedError | undefined; isReached: boolean }> {
  const directory = mkdtempSync(join(tmpdir(), 'cni-faults-'));
  t.teardown(() => rmSync(directory, { recursive: true, force: true }));
  const log = join(directory, 'log');
  const { pod, network } = attachment;
  const [{ type }] = network.plugins as [PluginConf];
  const { exit, stdout } = await host.tryRun(
    [
      'strace',
      '-qq',
      '-o',
      log,
      '-e',
      `trace=${inject.split(':')[0]}`,
      '-e',
      `inject=${inject}`,
      join(suites.ours, type),
    ],
    {
      env: addEnvironment(pod),
      stdin: JSON.stringify({ ...network.plugins[0], name: network.name, cniVersion: network.cniVersion }),
    },
  );
  return {
    exit,
    error: exit === 0 ? undefined : (JSON.parse(stdout) as PrintedError),
    isReached: readFileSync(log, 'utf8').includes('(INJECTED)'),
  };
}

for (const [name, plugin] of Object.entries(networks))
  for (const call of name === 'bridge'
    ? ['sendto:error=ENOBUFS', 'socket:error=EMFILE']
    : ['sendto:error=ENOBUFS'])
    test(`${name}: ${call} at any time undoes ADD and spares the living attachment`, async (t) => {
      const host = await makeHostWithDevices(t);
      const network = networkOf(plugin);
      const neighbour = plugin.type === 'host-device' ? undefined : await attach(host, network);
      if (!neighbour) await (await attach(host, network)).del();
      const before = [await snapshot(host), neighbour && (await networkSnapshot(neighbour.pod))];
      let failures = 0;
      for (let when = 1; ; when++) {
        const pod = await host.addPod();
        const attachment = new Attachment(host, pod, network);
        const { exit, error, isReached } = await addWithFault(t, host, attachment, `${call}:when=${when}`);
        if (exit === 0) {
          attachment.result = undefined;
          await attachment.del();
        } else {
          failures++;
          t.true(error!.msg.length > 0 && !/at .*\.js/.test(JSON.stringify(error)));
          t.is(await link(pod, 'eth0'), undefined, `after failure ${when}`);
        }
        await pod.remove();
        const after = [await snapshot(host), neighbour && (await networkSnapshot(neighbour.pod))];
        t.deepEqual(after, before, `after failure ${when}: ${error?.msg}`);
        if (!isReached) break;
      }
      t.true(failures > 0);
      await neighbour?.check();
    });

for (const [name, plugin] of [
  ['bridge without addresses', { type: 'bridge', bridge: 'br0' }],
  ['bridge', { type: 'bridge', bridge: 'br0', ipam: { type: 'host-local', subnet: '10.31.0.0/24' } }],
  ['ptp', { type: 'ptp', ipam: { type: 'host-local', subnet: '10.31.0.0/24' } }],
  ['macvlan', { type: 'macvlan', master: 'up0', ipam: { type: 'host-local', subnet: '10.31.0.0/24' } }],
] as const)
  test(`${name}: ADD goes on with a read-only /proc/sys, and says what it could not set`, async (t) => {
    const host = await makeHostWithDevices(t);
    // What the host must have anyway.
    await host.run(['sh', '-c', 'echo 1 >/proc/sys/net/ipv4/ip_forward']);
    await host.run(['sh', '-c', 'mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys']);
    const one = new Attachment(host, await host.addPod(), networkOf(plugin));
    const { exit, stderr } = await one.tryAdd();
    t.is(exit, 0);
    t.regex(stderr, /Cannot set kernel setting "net\/ipv[46]\/conf\/\S+" to "\d"/);
    t.true((await link(one.pod, 'eth0'))?.flags.includes('UP'));
    await one.check();
    await one.del();
  });

test('ADD that needs forwarding fails cleanly where it cannot be turned on', async (t) => {
  const host = await makeHostWithDevices(t);
  const network = networkOf({ type: 'ptp', ipam: { type: 'host-local', subnet: '10.31.0.0/24' } });
  t.is(await sysctl(host, 'net/ipv4/ip_forward'), '0');
  await host.run(['sh', '-c', 'mount --bind /proc/sys /proc/sys && mount -o remount,ro,bind /proc/sys']);
  const pod = await host.addPod();
  const { links, ...before } = (await snapshot(host)) as Record<string, unknown>;
  const { error } = await new Attachment(host, pod, network).tryAdd();
  t.regex(error!.msg, /net\/ipv4\/ip_forward/);
  const { links: linksAfter, ...after } = (await snapshot(host)) as Record<string, unknown>;
  t.deepEqual({ ...after, files: {} }, { ...before, files: {} });
  t.deepEqual(linksAfter, links);
});
