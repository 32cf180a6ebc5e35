/** A sandbox's path or an address that another pod has by now: DEL and GC of the former pod spare it. */

import { writeFileSync } from 'node:fs';
import test from 'ava';
import { readCached } from '../../cli/libcni/cache.ts';
import {
  Attachment,
  attach,
  type Conflist,
  type PluginConf,
  remember,
  runNetworkVerb,
} from '../support/chain.ts';
import { firewallAlone, firewallNet } from '../support/firewall.ts';
import { type Host, makeHost, makeHostWithDevices, type Pod } from '../support/host.ts';
import { iptablesSave, link, links, networkSnapshot, ping } from '../support/observe.ts';
import { replace } from '../support/replace.ts';

const ipam = { type: 'host-local', subnet: '10.31.0.0/24' };
const networkOf = (plugin: PluginConf): Conflist => ({
  cniVersion: '1.0.0',
  name: 'reused',
  plugins: [plugin],
});

const networks: Record<string, PluginConf> = {
  bridge: { type: 'bridge', bridge: 'br0', isGateway: true, ipMasq: true, ipam },
  ptp: { type: 'ptp', ipMasq: true, ipam },
  macvlan: { type: 'macvlan', master: 'up0', ipam },
  tap: { type: 'tap', ipam },
  'macvlan whose MAC address is set': { type: 'macvlan', master: 'up0', mac: '02:00:00:00:00:09', ipam },
};

for (const [name, plugin] of Object.entries(networks)) {
  test(`DEL leaves the interface of the pod that has the sandbox's path by now: ${name}`, async (t) => {
    const host = await makeHostWithDevices(t);
    const network = networkOf(plugin);
    const one = await attach(host, network);
    const pod = await replace(host, one.pod);
    const next = await attach(host, network, { pod, containerId: 'next' });
    const before = await networkSnapshot(pod);
    await one.del();
    t.deepEqual(await networkSnapshot(pod), before);
    // Even when the runtime has lost the result of ADD, once it has cached the next one.
    remember(host, next);
    await new Attachment(host, pod, network).del();
    t.deepEqual(await networkSnapshot(pod), before);
    if (['bridge', 'ptp'].includes(name)) t.true(await ping(pod, '10.31.0.1'));
    await next.check();
    await next.del();
    t.is(await link(pod, 'eth0'), undefined);
  });

  test(`DEL takes the interface away whose MAC address was changed: ${name}`, async (t) => {
    const host = await makeHostWithDevices(t);
    const one = await attach(host, networkOf(plugin));
    await one.pod.run(['ip', 'link', 'set', 'eth0', 'address', '02:00:00:00:00:07']);
    await one.del();
    t.is(await link(one.pod, 'eth0'), undefined);
  });
}

for (const plugin of [
  { type: 'macvlan', master: 'up0' },
  { type: 'host-device', device: 'dev0' },
])
  test(`DEL takes the interface away whose MAC address tuning has put back, without addresses: ${plugin.type}`, async (t) => {
    const host = await makeHostWithDevices(t);
    const before = (await links(host)).map(({ ifname, address }) => [ifname, address]);
    const network = { ...networkOf(plugin), plugins: [plugin, { type: 'tuning', mac: '02:00:00:00:00:01' }] };
    const one = await attach(host, network);
    t.is((await link(one.pod, 'eth0'))?.address, '02:00:00:00:00:01');
    await one.del();
    t.is(await link(one.pod, 'eth0'), undefined);
    t.deepEqual(
      (await links(host)).map(({ ifname, address }) => [ifname, address]),
      before,
    );
    await one.add();
  });

test('DEL leaves "lo" of the pod that has the sandbox\'s path by now', async (t) => {
  const host = await makeHost(t);
  const network = { ...networkOf({ type: 'loopback' }), name: 'cni-loopback' };
  const isUp = async (pod: Pod) => (await link(pod, 'lo'))!.flags.includes('UP');
  const one = await attach(host, network, { ifname: 'lo' });
  const pod = await replace(host, one.pod);
  const next = await attach(host, network, { pod, containerId: 'next', ifname: 'lo' });
  remember(host, next);
  await one.del();
  t.true(await isUp(pod));
  await next.del();
  t.false(await isUp(pod));
});

test('DEL brings "lo" down whatever results of other interfaces tell of it', async (t) => {
  const host = await makeHost(t);
  const network = { ...networkOf({ type: 'loopback' }), name: 'cni-loopback' };
  const one = await attach(host, network, { ifname: 'lo' });
  const other = new Attachment(host, one.pod, { ...network, name: 'my-local' }, { containerId: 'other' });
  other.result = one.result;
  remember(host, other);
  await one.del();
  t.false((await link(one.pod, 'lo'))!.flags.includes('UP'));
});

test("DEL leaves the settings, rules and addresses of the pod that has the sandbox's path by now", async (t) => {
  const host = await makeHost(t);
  const bridge = { type: 'bridge', bridge: 'br0', isDefaultGateway: true, ipam };
  const network = {
    ...networkOf(bridge),
    plugins: [bridge, { type: 'sbr' }, { type: 'tuning', mtu: 1400, mac: '02:00:00:00:00:01' }],
  };
  const one = await attach(host, network);
  const pod = await replace(host, one.pod);
  network.plugins[2] = { type: 'tuning', mtu: 1300, mac: '02:00:00:00:00:02' };
  const next = await attach(host, network, { pod, containerId: 'next' });
  const before = [await networkSnapshot(pod), (await link(pod, 'eth0'))!.address];
  await one.del();
  t.deepEqual([await networkSnapshot(pod), (await link(pod, 'eth0'))!.address], before);
  await next.check();
});

test("DEL gives the host no device that the next pod at the sandbox's path has", async (t) => {
  const host = await makeHostWithDevices(t);
  await host.run(['ip', 'link', 'add', 'dev2', 'type', 'veth', 'peer', 'name', 'dev3']);
  const one = await attach(host, networkOf({ type: 'host-device', device: 'dev0' }));
  await one.pod.run(['ip', 'link', 'set', 'eth0', 'netns', String(host.pid), 'name', 'dev0']);
  const pod = await replace(host, one.pod);
  const next = await attach(host, networkOf({ type: 'host-device', device: 'dev2' }), {
    pod,
    containerId: 'next',
  });
  remember(host, next);
  await one.del();
  t.truthy(await link(pod, 'eth0'));
  await next.del();
  t.truthy(await link(host, 'dev2'));
});

const accepted = async (host: Host, ip: string) =>
  (await iptablesSave(host, 'filter')).filter((rule) => rule.includes(`${ip}/32`)).length;

/** A network with one address, whose firewall rules the reference makes. */
const small = (): Conflist => {
  const network = firewallNet('1.0.0', { backend: 'iptables' });
  const only = { type: 'host-local', subnet: '10.32.0.0/24', rangeStart: '10.32.0.5', rangeEnd: '10.32.0.5' };
  return { ...network, plugins: [{ ...network.plugins[0]!, ipam: only }, network.plugins[1]!] };
};

test('GC collects the firewall rules that a lost pod of the reference left, as far as libcni has it', async (t) => {
  const host = await makeHost(t);
  const lost = await attach(host, small(), { suite: 'reference' });
  remember(host, lost);
  await lost.pod.remove();
  t.is(await accepted(host, lost.ip), 2);
  const gc = await runNetworkVerb(host, { ...small(), cniVersion: '1.1.0' }, 'GC', { valid: [] });
  t.is(gc.exit, 0, gc.stdout);
  t.is(await accepted(host, lost.ip), 0);
});

test('GC and DEL leave the firewall rules of a living pod that the reference has added', async (t) => {
  const host = await makeHost(t);
  const lost = await attach(host, small());
  remember(host, lost);
  // The reference releases the address, and leaves the note that says for whom it was accepted.
  const removed = new Attachment(host, lost.pod, small(), { suite: 'reference' });
  removed.result = lost.result;
  await removed.del();
  const living = await attach(host, small(), { suite: 'reference' });
  t.is(living.ip, lost.ip);
  // As long as it is not in the cache, host-local's reservation tells.
  const again = new Attachment(host, lost.pod, small());
  again.result = lost.result;
  const firewall = firewallAlone(again, { backend: 'iptables' });
  firewall.result = lost.result;
  await firewall.del();
  t.is(await accepted(host, living.ip), 2);
  remember(host, living);
  await firewall.del();
  const valid = [{ containerID: living.pod.containerId, ifname: 'eth0' }];
  const gc = await runNetworkVerb(host, { ...small(), cniVersion: '1.1.0' }, 'GC', { valid });
  t.is(gc.exit, 0, gc.stdout);
  t.is(await accepted(host, living.ip), 2);
  await living.del({ suite: 'ours' });
  t.is(await accepted(host, living.ip), 0);
});

test('DEL knows its own reservation in the form of very old versions, also with an end of line', async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, small());
  const file = host.file(`/var/lib/cni/networks/br0/${one.ip}`);
  for (const text of [`${one.pod.containerId}`, `${one.pod.containerId}\n`]) {
    writeFileSync(file, text);
    const firewall = firewallAlone(one, { backend: 'iptables' });
    firewall.result = one.result;
    await firewall.del();
    t.is(await accepted(host, one.ip), 0, JSON.stringify(text));
    await firewall.tryAdd({}, one.result);
    t.is(await accepted(host, one.ip), 2);
  }
});

test('GC collects chains without rules that a reference plugin left which was killed, and no others', async (t) => {
  const host = await makeHost(t);
  const network = networkOf({ type: 'ptp', ipMasq: true, ipam });
  network.plugins.push({ type: 'portmap', backend: 'iptables', capabilities: { portMappings: true } });
  const ports = { capabilities: { portMappings: [{ hostPort: 8080, containerPort: 80 }] } };
  const living = await attach(host, network, ports);
  const [masq, dnat] = [`CNI-${'1'.repeat(24)}`, `CNI-DN-${'2'.repeat(21)}`];
  const [used, other] = [`CNI-DN-${'3'.repeat(21)}`, 'CNI-OPERATOR'];
  for (const program of ['iptables', 'ip6tables'])
    for (const chain of [masq, dnat, `CNI-SN-${'4'.repeat(21)}`, used, other])
      await host.run([program, '-t', 'nat', '-N', chain]);
  await host.run(['iptables', '-t', 'nat', '-A', 'PREROUTING', '-s', '192.0.2.7', '-j', used]);
  await host.run(['ip6tables', '-t', 'nat', '-A', used, '-j', 'RETURN']);
  const valid = [{ containerID: living.pod.containerId, ifname: 'eth0' }];
  const gc = await runNetworkVerb(host, { ...network, cniVersion: '1.1.0' }, 'GC', { valid });
  t.is(gc.exit, 0, gc.stdout);
  for (const family of [4, 6] as const) {
    const chains = (await iptablesSave(host, 'nat', family)).filter((line) => line.startsWith(':CNI-'));
    t.false(
      chains.some((line) => /:CNI-(?:1{24}|DN-2{21}|SN-4{21})/.test(line)),
      chains.join(),
    );
    for (const chain of [used, other]) t.true(chains.includes(`:${chain} -`), chain);
  }
  await living.check();
});

test('GC goes on where the cache is torn or hostile', async (t) => {
  const host = await makeHost(t);
  const lost = await attach(host, small(), { suite: 'reference' });
  remember(host, lost);
  const directory = host.file('/var/lib/cni/results');
  for (const [name, text] of [
    ['torn', '{"kind":"cniCacheV1","containerId":"x"'],
    ['list', '[1]'],
    [
      'odd',
      JSON.stringify({
        networkName: 'br0',
        containerId: 'x',
        result: { ips: [7, { address: {} }], interfaces: 'x' },
      }),
    ],
  ] as const)
    writeFileSync(`${directory}/${name}`, text);
  await host.run(['ln', '-s', 'loop', '/var/lib/cni/results/loop']);
  await lost.pod.remove();
  const gc = await runNetworkVerb(host, { ...small(), cniVersion: '1.1.0' }, 'GC', { valid: [] });
  t.is(gc.exit, 0, gc.stdout);
  t.is(await accepted(host, lost.ip), 0);
  t.truthy(
    readCached(host.file('/var/lib/cni'), {
      network: 'br0',
      containerId: lost.pod.containerId,
      ifname: 'eth0',
    }),
  );
});
