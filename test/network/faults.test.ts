/**
 * ADD at the mercy of the kernel: whichever request fails, what was done before it is undone, and a living
 * attachment is not hurt.
 * Runs once: no agent takes part.
 */

import test from 'ava';
import { fail } from '../proof/injection.ts';
import { subjects } from '../proof/subjects.ts';
import { Attachment, attach, type Conflist, type PluginConf } from '../support/chain.ts';
import { type Host, makeHostWithDevices } from '../support/host.ts';
import { link, networkSnapshot, snapshot, sysctl } from '../support/observe.ts';
import { addEnvironment, type PrintedError } from '../support/plugin.ts';

/** The first plugin of one of the proofs' chains, here with default routes of both families. */
function firstOf(subject: string): PluginConf {
  const [plugin] = subjects[subject]!.network.plugins as [PluginConf];
  return { ...plugin, ipam: { ...(plugin.ipam as object), routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }] } };
}

const networks: Record<string, PluginConf> = {
  bridge: firstOf('iptables'),
  'bridge with nftables': firstOf('nftables'),
  ptp: firstOf('ptp'),
  macvlan: firstOf('macvlan'),
  'host-device': firstOf('host-device'),
};

function networkOf(plugin: PluginConf): Conflist {
  return { cniVersion: '1.1.0', name: 'faults', plugins: [plugin] };
}

/** ADD in which one system call fails. @param call its name. @param nth which one of that name. */
function addWithFault(host: Host, { pod, network }: Attachment, call: string, nth: number, error: string) {
  const [config] = network.plugins as [PluginConf];
  const { name, cniVersion } = network;
  const stdin = JSON.stringify({ ...config, name, cniVersion });
  return fail(host, { type: config.type, env: addEnvironment(pod), stdin }, { call, nth }, error);
}

for (const [name, plugin] of Object.entries(networks))
  for (const [call, refusal] of name === 'bridge'
    ? ([
        ['sendto', 'ENOBUFS'],
        ['socket', 'EMFILE'],
      ] as const)
    : ([['sendto', 'ENOBUFS']] as const))
    test(`${name}: ${refusal} of ${call} at every third time undoes ADD and spares the living attachment`, async (t) => {
      const host = await makeHostWithDevices(t);
      const network = networkOf(plugin);
      const neighbour = plugin.type === 'host-device' ? undefined : await attach(host, network);
      if (!neighbour) await (await attach(host, network)).del();
      const before = [await snapshot(host), neighbour && (await networkSnapshot(neighbour.pod))];
      let failures = 0;
      // `npm run prove` fails every request of more chains.
      for (let when = 1; ; when += 3) {
        const pod = await host.addPod();
        const attachment = new Attachment(host, pod, network);
        const { exit, stdout, isReached } = await addWithFault(host, attachment, call, when, refusal);
        const error = exit === 0 ? undefined : (JSON.parse(stdout) as PrintedError);
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
