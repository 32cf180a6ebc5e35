/** Runs once: no agent takes part. */

import { isDeepStrictEqual } from 'node:util';
import test, { type ExecutionContext } from 'ava';
import type { PluginConf } from '../support/chain.ts';
import { converse, serveLines } from '../support/connection.ts';
import type { Host, Pod } from '../support/host.ts';
import { ipJson, link, links, ping, until } from '../support/observe.ts';
import { type Operator, operatorOf } from '../support/operator.ts';
import { outsideOf } from '../support/outside.ts';

const ranges = [[{ subnet: '10.5.0.0/24' }], [{ subnet: 'fd00:5::/64' }]];
const bridge = {
  type: 'bridge',
  bridge: 'br0',
  isDefaultGateway: true,
  ipMasq: true,
  ipam: { type: 'host-local', ranges },
};
const ptp = {
  type: 'ptp',
  ipMasq: true,
  ipam: {
    type: 'host-local',
    ranges,
    routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
  },
};

/** The state of the host's links, without numbers and times that change all the time. */
async function linksOf(host: Host): Promise<object> {
  const timers = /_timer|^gc_|^(?:root_|bridge_)?id$|_id$|cache_nsec|age$|^age|stats|ifindex|link_index/;
  const lasting = (key: string, value: unknown) => (timers.test(key) ? undefined : value);
  const json = async (...argv: string[]) => {
    const text = await host.run(argv);
    const all = (text.trim() === '' ? [] : JSON.parse(text)) as object[];
    return all
      .map((one) => JSON.stringify(one, lasting))
      .filter((one) => one !== '{}')
      .sort();
  };
  const routes = async (family: string) =>
    (await json('ip', family, '-j', 'route', 'show', 'table', 'all')).filter(
      // Which router anycast addresses the kernel has is a matter of chance when links change.
      (one) => !one.includes('fe80::') && !one.includes('"type":"anycast"'),
    );
  return {
    links: (await links(host))
      .map(({ ifname, address, mtu, flags, master, linkinfo, addr_info = [] }) => ({
        ...{ ifname, address, mtu, flags: flags.toSorted(), master },
        kind: linkinfo?.info_kind,
        port: JSON.stringify(linkinfo?.info_slave_data ?? {}, lasting),
        addresses: addr_info.map(({ local, prefixlen, scope }) =>
          scope === 'link' ? 'link-local' : `${local}/${prefixlen}`,
        ),
      }))
      .sort((a, b) => (a.ifname < b.ifname ? -1 : 1)),
    routes: [...(await routes('-4')), ...(await routes('-6'))],
    queues: await json('tc', '-j', 'qdisc'),
    settings: await host.run([
      'sh',
      '-c',
      'grep -H . /proc/sys/net/ipv4/ip_forward /proc/sys/net/ipv6/conf/all/forwarding /proc/sys/net/ipv4/conf/*/route_localnet',
    ]),
  };
}

/**
 * Removes something, repairs it, and checks that everything is as before.
 * @param missing what the repair must name.
 */
async function lose(
  t: ExecutionContext,
  { host, tryCni }: Operator,
  commands: readonly string[],
  missing: RegExp,
): Promise<void> {
  const label = commands.join('; ');
  const before = await linksOf(host);
  for (const command of commands) await host.run(['sh', '-c', command]);
  t.notDeepEqual(await linksOf(host), before, label);
  const repaired = await tryCni(['repair']);
  t.is(repaired.exit, 0, `${label}\n${repaired.stdout}${repaired.stderr}`);
  t.regex(repaired.stdout, missing);
  // The kernel makes some routes only once it has noticed the carrier.
  const isRestored = async () => isDeepStrictEqual(await linksOf(host), before);
  await until('all is as before', isRestored).catch(() => {});
  t.deepEqual(await linksOf(host), before, label);
}

async function hostEndOf(host: Host, pod: Pod): Promise<string> {
  const [eth0] = await ipJson<{ link_index: number }>(pod, 'link', 'show', 'dev', 'eth0');
  return (await links(host)).find(({ ifindex }) => ifindex === eth0!.link_index)!.ifname;
}

/** Connections in and out, which must survive. @returns a function that says something over each of them. */
async function connections(t: ExecutionContext, host: Host, pod: Pod) {
  const outside = await outsideOf(host);
  await serveLines(t, pod, 80);
  await serveLines(t, outside, 7000);
  const all = await Promise.all([
    converse(t, outside, '192.0.2.1', 8080),
    converse(t, outside, 'fd00:2::1', 8080),
    converse(t, pod, '192.0.2.2', 7000),
    converse(t, pod, 'fd00:2::2', 7000),
  ]);
  const expected = ['192.0.2.2', 'fd00:2::2', '192.0.2.1', 'fd00:2::1'];
  return async (text: string) =>
    t.deepEqual(
      await Promise.all(all.map((say) => say(text))),
      expected.map((peer) => `${peer} ${text}`),
    );
}

const portmap = { type: 'portmap', capabilities: { portMappings: true } };

test('what a bridge has lost comes back, and connections go on', async (t) => {
  const operator = await operatorOf(t, [{ ...bridge, hairpinMode: true }, portmap]);
  const { host } = operator;
  const [pod, other] = [await operator.add(8080), await operator.add(8081)];
  const say = await connections(t, host, pod);
  await say('first');
  const port = await hostEndOf(host, pod);
  for (const [commands, missing] of [
    [['ip addr del 10.5.0.1/24 dev br0'], /address 10\.5\.0\.1\/24 of interface "br0"/],
    [['ip addr flush dev br0'], /address fe80::[\da-f:]+\/64 of interface "br0"/],
    [['ip route del 10.5.0.0/24 dev br0'], /route to 10\.5\.0\.0\/24 by interface "br0"/],
    [['ip -6 route del fd00:5::/64 dev br0'], /route to fd00:5::\/64 by interface "br0"/],
    [['ip link set br0 down'], /state "up" of bridge "br0"/],
    [[`ip link set ${port} nomaster`], new RegExp(`port "${port}" of bridge "br0"`)],
    [[`ip link set ${port} down`], new RegExp(`state "up" of interface "${port}"`)],
    [[`bridge link set dev ${port} hairpin off`], new RegExp(`settings of port "${port}" of bridge "br0"`)],
    [['echo 0 > /proc/sys/net/ipv4/ip_forward'], /forwarding of IPv4/],
    [['echo 0 > /proc/sys/net/ipv6/conf/all/forwarding'], /forwarding of IPv6/],
    [['echo 0 > /proc/sys/net/ipv4/conf/br0/route_localnet'], /"net\.ipv4\.conf\.br0\.route_localnet"/],
    [['ip link del br0'], /bridge "br0"\n/],
  ] as const) {
    await lose(t, operator, commands, missing);
    await say(`after ${commands}`);
  }
  t.regex(await operator.cni(['repair']), /^0 attachments repaired, 2 intact\.\n$/);
  await operator.del(pod, 8080);
  await operator.del(other, 8081);
});

test('a bridge that was made again has the MAC address that pods know', async (t) => {
  const operator = await operatorOf(t, [bridge, portmap]);
  const { host } = operator;
  // The bridge keeps the MAC address of its first port, which it would not get from those that are there.
  await operator.del(await operator.add());
  const pods = [await operator.add(8080), await operator.add(8081)];
  const say = await connections(t, host, pods[0]!);
  await say('first');
  // These pods do not ask again, as others would after a while without an answer.
  for (const pod of pods)
    for (const gateway of ['10.5.0.1', 'fd00:5::1']) {
      t.true(await ping(pod, gateway));
      const [known] = await ipJson<{ lladdr: string }>(pod, 'neigh', 'show', gateway, 'dev', 'eth0');
      const entry = ['replace', gateway, 'lladdr', known!.lladdr, 'dev', 'eth0', 'nud', 'permanent'];
      await pod.run(['ip', 'neigh', ...entry]);
    }
  for (const fault of [
    'ip link del br0',
    'ip link del br0; ip link add br0 address 02:00:00:00:00:99 up type bridge',
  ]) {
    await lose(t, operator, [fault], /address 10\.5\.0\.1\/24 of interface "br0"|bridge "br0"\n/);
    await say(`after ${fault}`);
    for (const pod of pods)
      for (const gateway of ['10.5.0.1', 'fd00:5::1']) t.true(await ping(pod, gateway), fault);
  }
  for (const [index, pod] of pods.entries()) await operator.del(pod, 8080 + index);
});

test('isolation and the check of MAC addresses of a port come back', async (t) => {
  const operator = await operatorOf(t, [{ ...bridge, portIsolation: true, macspoofchk: true }]);
  const { host, cni, tryCni } = operator;
  const pod = await operator.add();
  const port = await hostEndOf(host, pod);
  for (const [commands, missing] of [
    [[`bridge link set dev ${port} isolated off`], /settings of port/],
    [[`ip link set ${port} nomaster`], /port "veth\w+" of bridge "br0"/],
    [['ip link del br0'], /bridge "br0"\n/],
  ] as const)
    await lose(t, operator, commands, missing);
  const rules = () => host.run(['nft', '-s', 'list', 'table', 'bridge', 'nat']);
  const before = await rules();
  await host.run(['nft', 'flush', 'ruleset']);
  t.is((await tryCni(['check', 'net', pod.netns])).exit, 1);
  t.regex(await cni(['repair']), new RegExp(`check of the MAC address of frames from "${port}"`));
  t.is(await rules(), before);
  await operator.del(pod);
});

test('what a point-to-point link has lost comes back, and connections go on', async (t) => {
  const operator = await operatorOf(t, [ptp, portmap]);
  const { host } = operator;
  const pod = await operator.add();
  const say = await connections(t, host, pod);
  await say('first');
  const end = await hostEndOf(host, pod);
  for (const [commands, missing] of [
    [[`ip addr del 10.5.0.1/32 dev ${end}`], /address 10\.5\.0\.1\/32 of interface "veth/],
    [[`ip addr flush dev ${end}`], /address fd00:5::1\/128 of interface "veth/],
    [['ip route del 10.5.0.2'], /route to 10\.5\.0\.2\/32 by interface "veth/],
    [['ip -6 route del fd00:5::2'], /route to fd00:5::2\/128 by interface "veth/],
    [[`ip link set ${end} down`], /state "up" of interface "veth/],
  ] as const) {
    await lose(t, operator, commands, missing);
    await say(`after ${commands}`);
  }
  t.regex(await operator.cni(['repair']), /^0 attachments repaired, 1 intact\.\n$/);
  await operator.del(pod);
  t.is(await link(host, end), undefined);
});

test('limits of bandwidth come back', async (t) => {
  const limits = { ingressRate: 8e6, ingressBurst: 8e5, egressRate: 16e6, egressBurst: 8e5 };
  const plugins: PluginConf[] = [bridge, { type: 'bandwidth', ...limits }];
  const operator = await operatorOf(t, plugins);
  const { host, cni } = operator;
  const pod = await operator.add();
  const end = await hostEndOf(host, pod);
  const ifb = (await links(host)).find(({ linkinfo }) => linkinfo?.info_kind === 'ifb')!.ifname;
  const redirects = async () =>
    (await host.run(['tc', 'filter', 'show', 'dev', end, 'ingress'])).match(
      /Egress Redirect to device \S+(?=\))/g,
    ) ?? [];
  for (const [commands, missing] of [
    [[`tc qdisc del dev ${end} root`], new RegExp(`limit of what leaves by interface "${end}"`)],
    [[`tc qdisc replace dev ${end} root tbf rate 1mbit burst 10kb latency 25ms`], /limit of what leaves by/],
    [[`tc qdisc del dev ${ifb} root`], new RegExp(`limit of what leaves by interface "${ifb}"`)],
    [[`tc qdisc del dev ${end} ingress`], new RegExp(`redirection from interface "${end}" to "${ifb}"`)],
    [[`ip link set ${ifb} down`], new RegExp(`state "up" of interface "${ifb}"`)],
  ] as const) {
    await lose(t, operator, commands, missing);
    t.deepEqual(await redirects(), [`Egress Redirect to device ${ifb}`]);
  }
  t.true(await ping(pod, '10.5.0.1'));
  await host.run(['ip', 'link', 'del', ifb]);
  t.deepEqual(await redirects(), ['Egress Redirect to device *']);
  t.regex(await cni(['repair']), /interface by which the container sends/);
  t.deepEqual(await redirects(), [`Egress Redirect to device ${ifb}`]);
  t.true(await ping(pod, '10.5.0.1'));

  // A redirection that drops everything may also stand before the one that is right.
  const dead =
    'handle 800::1 pref 1 protocol all u32 match u32 0 0 action mirred egress redirect dev gone'.split(' ');
  await host.run('ip link add gone up type bridge'.split(' '));
  await host.run(['tc', 'filter', 'add', 'dev', end, 'ingress', ...dead]);
  await host.run('ip link del gone'.split(' '));
  t.deepEqual(await redirects(), ['Egress Redirect to device *', `Egress Redirect to device ${ifb}`]);
  t.regex(await cni(['repair']), /redirection from interface/);
  t.true(await ping(pod, '10.5.0.1'));
  t.regex(await operator.cni(['repair']), /^0 attachments repaired, 1 intact\.\n$/);

  // A redirection that others have put before it is theirs, and adding another one behind it is of no use.
  const foreign = `pref 1 protocol all u32 match u32 0 0 action mirred egress redirect dev foreign`.split(
    ' ',
  );
  await host.run('ip link add foreign up type bridge'.split(' '));
  await host.run(['tc', 'filter', 'del', 'dev', end, 'ingress']);
  await host.run(['tc', 'filter', 'add', 'dev', end, 'ingress', ...foreign]);
  const { stdout, stderr } = await operator.tryCni(['repair']);
  t.regex(
    stdout + stderr,
    /Another filter takes all that comes in by .* Look for it with "tc filter show dev/,
  );
  t.deepEqual(await redirects(), ['Egress Redirect to device foreign']);
  await operator.del(pod);
  t.is(await link(host, ifb), undefined);
});
