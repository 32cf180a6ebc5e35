/** sbr: a pod with two interfaces answers on the one that it was asked on. */

import { existsSync } from 'node:fs';
import test, { type ExecutionContext } from 'ava';
import { Attachment, attach, type Conflist, sample } from '../support/chain.ts';
import { type Host, makeHost, type Namespace } from '../support/host.ts';
import * as observe from '../support/observe.ts';

const network = sample('52-sbr.conflist');

/** The sample with other keys for sbr. */
function routed(keys: object): Conflist {
  return { ...network, cniVersion: '1.1.0', plugins: [network.plugins[0]!, { type: 'sbr', ...keys }] };
}

/**
 * A pod on a network of its own, and on the sample's first plugin, and the attachment with sbr to try on it.
 */
async function prepare(t: ExecutionContext, keys: object = {}): Promise<{ host: Host; sbr: Attachment }> {
  const host = await makeHost(t);
  const { pod } = await attach(host, sample('10-bridge.conflist'));
  const second = { ...routed({}), plugins: [network.plugins[0]!] };
  const { result } = await attach(host, second, { pod, ifname: 'net1' });
  const only = { ...routed({}), plugins: [{ type: 'sbr', prevResult: result, ...keys }] };
  return { host, sbr: new Attachment(host, pod, only, { ifname: 'net1' }) };
}

/** Every rule and route except the kernel's own, as lines of `ip`. */
async function routing(ns: Namespace): Promise<string[]> {
  const texts = await Promise.all([
    ns.run(['ip', '-4', 'rule']),
    ns.run(['ip', '-6', 'rule']),
    ns.run(['ip', '-4', 'route', 'show', 'table', 'all']),
    ns.run(['ip', '-6', 'route', 'show', 'table', 'all']),
  ]);
  return texts
    .flatMap((text) => text.split('\n'))
    .filter((line) => line !== '' && !/table local|fe80::/.test(line))
    .map((line) => line.trim().replace(/ linkdown\b/, ''))
    .sort();
}

/** The interface that packets from an address to the world leave by. */
async function wayOut(ns: Namespace, from: string): Promise<string | undefined> {
  const family = from.includes(':') ? '-6' : '-4';
  const [route] = await observe.ipJson<observe.IpRoute>(
    ns,
    ...[family, 'route', 'get', family === '-4' ? '203.0.113.9' : '2001:db8::9', 'from', from],
  );
  return route?.dev;
}

test('packets leave by the interface whose address they have', async (t) => {
  const { host, sbr } = await prepare(t);
  const { pod } = sbr;
  await host.run('ip address add 203.0.113.9/32 dev lo'.split(' '));
  // A node with strict reverse path filtering.
  for (const name of ['all', 'cni0', 'cni2'])
    await host.run(['sysctl', '-qw', `net.ipv4.conf.${name}.rp_filter=1`]);
  const prevResult = sbr.network.plugins[0]!.prevResult as NonNullable<typeof sbr.result>;
  const [v4, v6] = prevResult.ips!.map(({ address }) => address.split('/')[0]!) as [string, string];
  const [first] = await observe.addresses(pod, 'eth0');
  const sources = [v4, first!.split('/')[0]!];
  const both = () => Promise.all(sources.map((from) => observe.ping(pod, '203.0.113.9', '-I', from)));
  t.notDeepEqual(await both(), [true, true]);

  t.deepEqual(await sbr.add(), prevResult);
  t.is(await wayOut(pod, v4), 'net1');
  t.is(await wayOut(pod, v6), 'net1');
  t.deepEqual(await both(), [true, true]);
  t.true(await observe.ping(host, v4));
  t.true(await observe.ping(host, v6));
});

test('the sample makes a table an address, and DEL removes the rules', async (t) => {
  const host = await makeHost(t);
  const attachment = await attach(host, network);
  const { pod } = attachment;
  t.deepEqual(await routing(pod), [
    '0:\tfrom all lookup local',
    '0:\tfrom all lookup local',
    '10.93.0.0/16 dev eth0 table 100 proto kernel scope link src 10.93.0.2',
    '32765:\tfrom 10.93.0.2 lookup 100',
    '32765:\tfrom fd00:10:93::2 lookup 101',
    '32766:\tfrom all lookup main',
    '32766:\tfrom all lookup main',
    '32767:\tfrom all lookup default',
    'default via 10.93.0.1 dev eth0 table 100',
    'default via fd00:10:93::1 dev eth0 table 101 metric 1024 pref medium',
    'fd00:10:93::/64 dev eth0 table 101 proto kernel metric 256 pref medium',
  ]);
  await attachment.del();
  await attachment.del();
  t.false((await routing(pod)).some((line) => line.includes('10.93.')));
});

test('CHECK agrees with ADD, and misses rule and default route', async (t) => {
  const { sbr } = await prepare(t);
  await sbr.add();
  await sbr.check();
  await sbr.pod.run('ip route delete default table 100'.split(' '));
  t.regex((await sbr.tryCheck()).error!.msg, /Table 100.*no default route via 10\.93\.0\.1/);
  await sbr.pod.run('ip rule delete from 10.93.0.2'.split(' '));
  t.regex((await sbr.tryCheck()).error!.msg, /No rule leads packets from 10\.93\.0\.2\/32/);
});

test('CHECK agrees with ADD where the interface has a default route by another gateway than its address', async (t) => {
  const host = await makeHost(t);
  const ipam = {
    ...{ type: 'host-local', subnet: '10.93.0.0/24' },
    routes: [{ dst: '0.0.0.0/0', gw: '10.93.0.254' }],
  };
  const bridge = { ...network.plugins[0]!, isGateway: true, ipam };
  const one = await attach(host, { ...routed({}), plugins: [bridge, { type: 'sbr' }] });
  t.regex(await one.pod.run('ip route show table 100'.split(' ')), /default via 10\.93\.0\.254/);
  await one.check();
});

test('with a table given, only rules are made', async (t) => {
  const { sbr } = await prepare(t, { table: 4000 });
  const before = await routing(sbr.pod);
  await sbr.add();
  await sbr.check();
  t.deepEqual(
    (await routing(sbr.pod)).filter((line) => !before.includes(line)),
    ['32765:\tfrom 10.93.0.2 lookup 4000', '32765:\tfrom fd00:10:93::2 lookup 4000'],
  );
  await sbr.del();
  t.deepEqual(await routing(sbr.pod), before);
});

test('gateways of the configuration win', async (t) => {
  const { sbr } = await prepare(t, { gateways: ['10.93.0.7', 'fd00:10:93::7'] });
  await sbr.add();
  const lines = await routing(sbr.pod);
  t.true(lines.includes('default via 10.93.0.7 dev net1 table 100'));
  t.true(lines.includes('default via fd00:10:93::7 dev net1 table 101 metric 1024 pref medium'));
});

test('with source hints, the subnets stay in the main table', async (t) => {
  const { sbr } = await prepare(t, { addSourceHints: true });
  await sbr.add();
  const lines = await routing(sbr.pod);
  t.true(lines.includes('10.93.0.0/16 dev net1 proto kernel scope link src 10.93.0.2'));
  t.true(lines.some((line) => /^fd00:10:93::\/64 dev net1 .*src fd00:10:93::2/.test(line)));
  t.false(lines.some((line) => /^default .*dev net1(?!.*table)/.test(line)));
});

test('tables that somebody uses are left alone, and routes keep what they are', async (t) => {
  const { sbr } = await prepare(t);
  const { pod } = sbr;
  await pod.run('ip rule add fwmark 1 lookup 100'.split(' '));
  await pod.run('ip route add 192.0.2.0/24 dev net1 table 101'.split(' '));
  await pod.run('ip route add 198.51.100.0/24 via 10.93.0.5 dev net1 mtu 1300 metric 7'.split(' '));
  await sbr.add();
  const lines = await routing(pod);
  t.true(lines.includes('32764:\tfrom 10.93.0.2 lookup 102'));
  t.true(lines.includes('198.51.100.0/24 via 10.93.0.5 dev net1 table 102 metric 7 mtu 1300'));
  t.false(lines.some((line) => line.startsWith('198.51.100.0/24') && !line.includes('table')));
});

test('an IPv6 default route that two interfaces share stays with the other one', async (t) => {
  const host = await makeHost(t);
  const ipv6 = (number: number): Conflist => ({
    cniVersion: '1.0.0',
    name: `shared${number}`,
    plugins: [
      {
        type: 'bridge',
        bridge: `br${number}`,
        isDefaultGateway: true,
        ipam: { type: 'host-local', subnet: `fd0${number}::/64` },
      },
    ],
  });
  const { pod } = await attach(host, ipv6(1));
  const { result } = await attach(host, ipv6(2), { pod, ifname: 'net1' });
  const before = await routing(pod);
  t.true(
    before.some((line) => line.startsWith('nexthop via fd01::1')),
    before.join('\n'),
  );
  const only = (keys: object): Conflist => ({
    ...ipv6(2),
    plugins: [{ type: 'sbr', prevResult: result, ...keys }],
  });
  const failing = new Attachment(host, pod, only({ gateways: ['fd99::1'] }), { ifname: 'net1' });
  t.regex((await failing.tryAdd()).error!.msg, /via fd99::1/);
  t.deepEqual(await routing(pod), before);

  const sbr = new Attachment(host, pod, only({}), { ifname: 'net1' });
  await sbr.add();
  await sbr.check();
  t.is(await wayOut(pod, 'fd01::2'), 'eth0');
  t.is(await wayOut(pod, 'fd02::2'), 'net1');
  const defaults = (await routing(pod)).filter((line) => /^(default|nexthop)/.test(line));
  t.deepEqual(
    defaults.map((line) => line.replace(/ (metric|pref) .*/, '')),
    ['default via fd01::1 dev eth0', 'default via fd02::1 dev net1 table 100'],
  );
});

test('an ADD whose result nobody takes leaves all default routes as they were', async (t) => {
  const { sbr } = await prepare(t);
  const before = await routing(sbr.pod);
  t.is(before.filter((line) => line.startsWith('default via 10.')).length, 2);
  const unheard = await sbr.tryAdd({ isUnheard: true });
  t.not(unheard.exit, 0);
  t.deepEqual(await routing(sbr.pod), before);
});

test('a next hop that is on-link stays so where it goes, and where it comes back', async (t) => {
  const { sbr } = await prepare(t);
  const { pod } = sbr;
  const others = 'nexthop via fd00:10:93::1 dev net1 nexthop via fd01::1 dev eth0 onlink';
  const own = 'nexthop via fd99::1 dev net1 onlink';
  await pod.run('ip -6 route flush default'.split(' '));
  await pod.run(`ip -6 route add default ${others} ${own}`.split(' '));
  const before = await routing(pod);
  const unheard = await sbr.tryAdd({ isUnheard: true });
  t.not(unheard.exit, 0);
  t.deepEqual(await routing(pod), before);

  await sbr.add();
  const lines = (await routing(pod)).filter((line) => /^(default .*metric|nexthop)/.test(line));
  t.deepEqual(
    lines.map((line) => line.replace(/ (metric|pref|weight) \w+/g, '')),
    [
      'default table 101',
      'default via fd01::1 dev eth0 onlink',
      'nexthop via fd00:10:93::1 dev net1',
      'nexthop via fd99::1 dev net1 onlink',
    ],
  );
});

test('routes by a link-local gateway, which is in no subnet, move as well', async (t) => {
  const host = await makeHost(t);
  const plugins = [
    {
      type: 'bridge',
      bridge: 'br1',
      ipam: {
        type: 'static',
        addresses: [{ address: 'fd02::2/64', gateway: 'fe80::1' }],
        routes: [{ dst: '::/0' }, { dst: 'fd77::/48' }],
      },
    },
    { type: 'sbr' },
  ];
  const { pod } = await attach(host, { cniVersion: '1.0.0', name: 'linklocal', plugins });
  const ways = (await routing(pod)).filter((line) => /^(default|fd77)/.test(line));
  t.deepEqual(
    ways.map((line) => line.replace(/ (proto|metric) .*/, '')),
    [],
  );
  const [v6] = await Promise.all([pod.run('ip -6 route show table 100'.split(' '))]);
  t.regex(v6, /^default via fe80::1 dev eth0/m);
  t.regex(v6, /^fd77::\/48 via fe80::1 dev eth0/m);
});

test('an ADD that fails half-way takes back what it did', async (t) => {
  const { sbr } = await prepare(t, { gateways: ['fd99::1'] });
  const before = await routing(sbr.pod);
  const { error } = await sbr.tryAdd();
  t.regex(error!.msg, /Cannot add route to ::\/0 via fd99::1/);
  t.deepEqual(await routing(sbr.pod), before);
});

for (const [what, keys, pattern] of [
  ['two gateways of a family', { gateways: ['10.93.0.1', '10.93.0.2'] }, /only one gateway of each family/],
  ['a gateway that is no address', { gateways: ['10.93.0.300'] }, /not an IP address/],
  ['table 0', { table: 0 }, /between 1 and/],
  ['a table that is no number', { table: 'main' }, /whole number/],
  ['a result without addresses', { prevResult: { cniVersion: '1.1.0', interfaces: [] } }, /no IP address/],
  ['no result', { prevResult: undefined }, /no "prevResult"/],
] as const)
  test(`ADD refuses ${what}, and changes nothing`, async (t) => {
    const { sbr } = await prepare(t, keys);
    const before = await routing(sbr.pod);
    const { error } = await sbr.tryAdd();
    t.is(error?.code, 999);
    t.regex(error!.msg, pattern);
    t.deepEqual(await routing(sbr.pod), before);
  });

test('an interface without an address is left alone where another one has some', async (t) => {
  const prevResult = {
    cniVersion: '1.1.0',
    interfaces: [{ name: 'net2', sandbox: '/run/netns/x' }],
    ips: [{ address: '10.99.0.2/24', interface: 0 }],
  };
  const { sbr } = await prepare(t, { prevResult });
  const before = await routing(sbr.pod);
  await sbr.add();
  await sbr.check();
  t.deepEqual(await routing(sbr.pod), before);
});

test('DEL succeeds when interface or sandbox are gone, and makes no file in its place', async (t) => {
  const { sbr, host } = await prepare(t);
  const { pod } = sbr;
  await sbr.add();
  await pod.run('ip link delete net1'.split(' '));
  await sbr.del();
  t.false((await routing(pod)).some((line) => line.includes('lookup 10')));
  await pod.remove();
  await sbr.del();
  await sbr.del({ netns: '' });
  t.false(existsSync(host.file(pod.netns)));
});
