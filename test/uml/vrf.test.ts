/** vrf, on a kernel that has it. */

import { Attachment, attach, type Conflist, runNetworkVerb, sample } from '../support/chain.ts';
import { type Host, makeHost, type Namespace } from '../support/host.ts';
import * as observe from '../support/observe.ts';
import type { Suite } from '../support/plugin.ts';
import { type GuestContext, guestTest as test } from '../support/uml.ts';

const network = sample('53-vrf.conflist');

/** A pod on the sample's first plugin alone, and the attachment with vrf to try on it. */
async function prepare(t: GuestContext, keys: object = {}): Promise<{ host: Host; vrf: Attachment }> {
  const host = await makeHost(t);
  const { pod, result } = await attach(host, { ...network, plugins: [network.plugins[0]!] });
  const only = { ...network, plugins: [{ type: 'vrf', vrfname: 'red', prevResult: result, ...keys }] };
  return { host, vrf: new Attachment(host, pod, only) };
}

/** The routes of every table but the local one, without those that the kernel adds to each. */
async function routes(ns: Namespace): Promise<string[]> {
  const [v4, v6] = await Promise.all(
    ['-4', '-6'].map((family) => ns.run(['ip', family, 'route', 'show', 'table', 'all'])),
  );
  return `${v4}${v6}`
    .split('\n')
    .filter((line) => line !== '' && !/^(local|broadcast|anycast|multicast)|fe80::|ff00::|dev lo/.test(line))
    .map((line) => line.trim().replace(/ linkdown\b/, ''))
    .sort();
}

async function masterOf(ns: Namespace, name: string): Promise<string | undefined> {
  return (await observe.link(ns, name))?.master;
}

test('the sample routes by a table of its own, keeps addresses, and DEL leaves nothing', async (t) => {
  const host = await makeHost(t);
  const attachment = await attach(host, network);
  const { pod, ip } = attachment;
  t.is(await masterOf(pod, 'eth0'), 'red');
  t.deepEqual(await observe.addresses(pod, 'eth0'), ['10.94.0.2/16', 'fd00:10:94::2/64']);
  t.deepEqual(await routes(pod), [
    '10.94.0.0/16 dev eth0 table 1 proto kernel scope link src 10.94.0.2',
    'default via 10.94.0.1 dev eth0 table 1',
    'default via fd00:10:94::1 dev eth0 table 1 metric 1024 pref medium',
    'fd00:10:94::/64 dev eth0 table 1 proto kernel metric 256 pref medium',
  ]);
  t.true(await observe.ping(host, ip));
  t.true(await observe.ping(pod, '10.94.0.1', '-I', 'red'));
  t.true(await observe.ping(pod, 'fd00:10:94::1', '-I', 'red'));
  await attachment.check();
  await attachment.del();
  await attachment.del();
  t.deepEqual(
    (await observe.links(pod)).map(({ ifname }) => ifname),
    ['lo'],
  );
});

test('behind ptp, neighbours are reached by the gateway as before: the kernel adds no route to the subnet', async (t) => {
  const host = await makeHost(t);
  const ranges = [[{ subnet: '10.95.0.0/24' }], [{ subnet: 'fd00:10:95::/64' }]];
  const ptp = { type: 'ptp', ipam: { type: 'host-local', ranges } };
  const inVrf = { cniVersion: '1.1.0', name: 'ptpred', plugins: [ptp, { type: 'vrf', vrfname: 'red' }] };
  const [one, other] = [await attach(host, inVrf), await attach(host, inVrf)];
  t.deepEqual(
    (await routes(one.pod)).filter((line) => line.startsWith('fd00:10:95::/64')),
    ['fd00:10:95::/64 via fd00:10:95::1 dev eth0 table 1 src fd00:10:95::2 metric 1024 pref medium'],
  );
  t.true(await observe.ping(one.pod, 'fd00:10:95::3', '-I', 'red'));
  await one.del();
  await other.del();
});

test('overlapping networks live side by side in VRFs with tables of their own', async (t) => {
  const { host, vrf } = await prepare(t);
  const { pod } = vrf;
  await vrf.add();
  const second: Conflist = {
    ...network,
    name: 'bluenet',
    plugins: [
      { ...network.plugins[0]!, bridge: 'cni4' },
      { type: 'vrf', vrfname: 'blue' },
    ],
  };
  const blue = await attach(host, second, { pod, ifname: 'net1' });
  t.is(blue.ip, '10.94.0.2');
  t.is(await masterOf(pod, 'net1'), 'blue');
  const lines = await routes(pod);
  t.true(lines.includes('default via 10.94.0.1 dev eth0 table 1'));
  t.true(lines.includes('default via 10.94.0.1 dev net1 table 2'));
  await blue.del();
  t.truthy(await observe.link(pod, 'red'));
  t.falsy(await observe.link(pod, 'blue'));
});

test('a VRF goes with its last member', async (t) => {
  const { vrf } = await prepare(t, { table: 42 });
  const { pod } = vrf;
  await pod.run('ip link add other type dummy'.split(' '));
  await pod.run('ip link add red type vrf table 42'.split(' '));
  await pod.run('ip link set red up'.split(' '));
  await pod.run('ip link set other master red'.split(' '));
  await vrf.add();
  await vrf.check();
  await vrf.del();
  t.is(await masterOf(pod, 'other'), 'red');
  t.is(await masterOf(pod, 'eth0'), undefined);
  await pod.run('ip link delete other'.split(' '));
  // The interface is gone too: the reference plugin fails here.
  await pod.run('ip link delete eth0'.split(' '));
  await vrf.del();
  t.falsy(await observe.link(pod, 'red'));
  await pod.remove();
  await vrf.del();
  await vrf.del({ netns: '' });
});

test('routes keep what they are, with several next hops too', async (t) => {
  const { vrf } = await prepare(t, { table: 42 });
  const { pod } = vrf;
  await pod.run('ip route add 198.51.100.0/24 via 10.94.0.5 mtu 1300 metric 7'.split(' '));
  await pod.run('ip route add 192.0.2.0/24 nexthop via 10.94.0.5 weight 2 nexthop via 10.94.0.6'.split(' '));
  await pod.run('ip route add 203.0.113.7/32 dev eth0'.split(' '));
  await pod.run(
    'ip -6 route add 2001:db8::/32 nexthop via fd00:10:94::5 nexthop via fd00:10:94::6'.split(' '),
  );
  await pod.run('sysctl -qw net.ipv6.conf.eth0.keep_addr_on_down=0'.split(' '));
  await pod.run('ip route add 198.51.100.128/25 via 10.94.0.7 table 100'.split(' '));
  await pod.run('ip -6 route add 2001:db8:1::/48 via fd00:10:94::7 table 100'.split(' '));
  const before = await routes(pod);
  await vrf.add();
  const tableless = (await routes(pod)).map((line) => line.replace(/ table 42/, ''));
  t.deepEqual(tableless.sort(), before);
  t.deepEqual(await observe.addresses(pod, 'eth0'), ['10.94.0.2/16', 'fd00:10:94::2/64']);
  t.true(await observe.ping(pod, 'fd00:10:94::1', '-I', 'red'));
});

test('the other default route stays where it is, though IPv6 has both as one', async (t) => {
  const { host, vrf } = await prepare(t, { table: 42 });
  const { pod } = vrf;
  const other = { type: 'bridge', bridge: 'br1', isDefaultGateway: true };
  const ipam = { type: 'host-local', ranges: [[{ subnet: '10.95.0.0/24' }], [{ subnet: 'fd01::/64' }]] };
  const eth1: Conflist = { cniVersion: '1.0.0', name: 'shared', plugins: [{ ...other, ipam }] };
  await attach(host, eth1, { pod, ifname: 'eth1' });
  const before = await routes(pod);
  t.true(before.some((line) => line.startsWith('nexthop via fd01::1')));
  t.is(before.filter((line) => line.startsWith('default via 10.')).length, 2);
  const unheard = await vrf.tryAdd({ isUnheard: true });
  t.true(unheard.exit !== 0);
  t.deepEqual(await routes(pod), before);
  await vrf.add();
  const ways = (await routes(pod)).filter((line) => /^(default|nexthop)/.test(line));
  t.deepEqual(
    ways.map((line) => line.replace(/ metric .*/, '')),
    [
      'default via 10.94.0.1 dev eth0 table 42',
      'default via 10.95.0.1 dev eth1',
      'default via fd00:10:94::1 dev eth0 table 42',
      'default via fd01::1 dev eth1',
    ],
  );
});

test('ADD refuses what cannot be, and changes nothing', async (t) => {
  const { vrf } = await prepare(t);
  const { pod } = vrf;
  await pod.run('ip link add plain type dummy'.split(' '));
  await pod.run('ip link add full type vrf table 7'.split(' '));
  const before = [await routes(pod), (await observe.links(pod)).map(({ ifname }) => ifname)];
  for (const [keys, pattern] of [
    [{ vrfname: undefined }, /"vrfname" is missing/],
    [{ vrfname: '../red' }, /"vrfname" is "\.\.\/red", which contains "\/"/],
    [{ vrfname: 'a-name-of-16-byte' }, /longer than the 15 bytes/],
    [{ vrfname: 'plain' }, /"plain" of the sandbox is of kind "dummy", not a VRF/],
    [{ vrfname: 'full', table: 8 }, /"full" has table 7, but should have 8/],
    [{ table: -1 }, /between 0 and/],
    [{ table: 'red' }, /whole number/],
    [{ prevResult: undefined }, /no "prevResult"/],
  ] as const) {
    const only = { ...vrf.network, plugins: [{ ...vrf.network.plugins[0]!, ...keys }] };
    const { error } = await new Attachment(vrf.host, pod, only).tryAdd();
    t.is(error?.code, 999);
    t.regex(error!.msg, pattern);
  }
  t.deepEqual([await routes(pod), (await observe.links(pod)).map(({ ifname }) => ifname)], before);

  await pod.run('ip link add br0 type bridge'.split(' '));
  await pod.run('ip link set eth0 master br0'.split(' '));
  t.regex((await vrf.tryAdd()).error!.msg, /"eth0" already belongs to "br0"/);
  t.falsy(await observe.link(pod, 'red'));
});

test('CHECK misses membership, VRF and table', async (t) => {
  const { vrf } = await prepare(t, { table: 42 });
  const { pod } = vrf;
  await vrf.add();
  await vrf.check();
  for (const [drift, pattern] of [
    ['ip link set eth0 nomaster', /"eth0" is not in VRF "red"/],
    ['ip link set red down', /"red" is down/],
    ['ip link delete red', /"red" is missing/],
    ['ip link add red type vrf table 43', /table 43, but should have 42/],
  ] as const) {
    await pod.run(drift.split(' '));
    t.regex((await vrf.tryCheck()).error!.msg, pattern);
  }
});

test('each suite checks and deletes what the other made, and results are the same', async (t) => {
  const seen: string[][] = [];
  for (const [first, second] of [
    ['reference', 'ours'],
    ['ours', 'reference'],
  ] as [Suite, Suite][]) {
    const { vrf } = await prepare(t);
    const given = vrf.network.plugins[0]!.prevResult as object;
    const result = await vrf.add({ suite: first });
    t.deepEqual({ dns: {}, ...result }, { dns: {}, ...given });
    seen.push(await routes(vrf.pod));
    await vrf.check({ suite: second });
    await vrf.del({ suite: second });
    t.is(await masterOf(vrf.pod, 'eth0'), undefined);
    t.falsy(await observe.link(vrf.pod, 'red'));
  }
  // The older reference plugin loses the default routes.
  t.deepEqual(
    seen[1]!.filter((line) => !line.startsWith('default')),
    seen[0],
  );
});

test('STATUS finds that the kernel has VRFs', async (t) => {
  const host = await makeHost(t);
  const only = { ...network, cniVersion: '1.1.0', plugins: [network.plugins[1]!] };
  t.is((await runNetworkVerb(host, only, 'STATUS')).exit, 0);
  t.falsy(await observe.link(host, 'trial'));
});

test('an ADD that fails half-way takes back what it did', async (t) => {
  const host = await makeHost(t);
  const { pod, result } = await attach(host, {
    ...network,
    plugins: [{ ...network.plugins[0]!, enabledad: true }],
  });
  const only = { ...network, plugins: [{ type: 'vrf', vrfname: 'red', prevResult: result }] };
  const before = await routes(pod);
  // The interface goes down and up on its way into the VRF, and finds its address taken.
  await host.run('ip address add fd00:10:94::2/128 dev cni3 nodad'.split(' '));
  const { error } = await new Attachment(host, pod, only).tryAdd();
  t.regex(error!.msg, /already has IPv6 address fd00:10:94::2/);
  t.is(await masterOf(pod, 'eth0'), undefined);
  t.falsy(await observe.link(pod, 'red'));
  t.deepEqual(await routes(pod), before);
});

test("DEL leaves the VRF of the pod that has the sandbox's path by now", async (t) => {
  const host = await makeHost(t);
  const one = await attach(host, network);
  const { pod } = one;
  await pod.remove();
  await host.run(['ip', 'netns', 'add', pod.name]);
  const next = await attach(host, network, { pod, containerId: 'next' });
  const before = [await routes(pod), await masterOf(pod, 'eth0')];
  await one.del();
  t.deepEqual([await routes(pod), await masterOf(pod, 'eth0')], before);
  t.is(before[1], 'red');
  await next.check();
  await next.del();
  t.is(await masterOf(pod, 'eth0'), undefined);
});

test('VRFs that are made at the same time have tables of their own', async (t) => {
  const { vrf } = await prepare(t);
  const { pod } = vrf;
  // Another plugin that works in the sandbox, and makes a VRF only after ours has begun.
  const other = 'exec 9</proc/self/ns/net; flock 9; echo held; sleep 2; ip link add blue type vrf table 1';
  await pod.start(t, ['sh', '-c', other]);
  await vrf.add();
  t.true((await routes(pod)).includes('default via 10.94.0.1 dev eth0 table 2'));
});
