/** Pods added by one suite are checked and deleted by the other, and equal input gives equal results. */

import test, { type ExecutionContext } from 'ava';
import { Attachment, type AttachOptions, type Conflist, suitePairs } from '../support/chain.ts';
import { type Host, makeHost, type Namespace, type Pod } from '../support/host.ts';
import { type IpRoute, ipJson, iptablesSave, links, routes, snapshot } from '../support/observe.ts';
import { type Outcome, type PrintedResult, runPlugin, type Suite } from '../support/plugin.ts';

const ipam = { type: 'host-local', ranges: [[{ subnet: '10.5.0.0/24' }], [{ subnet: 'fd00:5::/64' }]] };
const withRoutes = {
  ...ipam,
  routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }, { dst: '10.9.0.0/16', gw: '10.5.0.9' }],
};
const bridge = {
  type: 'bridge',
  bridge: 'br0',
  isGateway: true,
  ipMasq: true,
  hairpinMode: true,
  ipam: withRoutes,
};
const ptp = { type: 'ptp', ipMasq: true, mtu: 1400, ipam: withRoutes };
const portmap = { type: 'portmap', capabilities: { portMappings: true } };
const mappings = {
  portMappings: [
    { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
    { hostPort: 5353, containerPort: 53, protocol: 'udp' },
  ],
};

const networks: Record<string, Conflist> = {
  bridge: { cniVersion: '1.0.0', name: 'net', plugins: [bridge] },
  'bridge of layer 2': { cniVersion: '0.4.0', name: 'net', plugins: [{ type: 'bridge', bridge: 'br0' }] },
  'bridge as default gateway': {
    cniVersion: '1.0.0',
    name: 'net',
    plugins: [{ type: 'bridge', bridge: 'br0', isDefaultGateway: true, ipam }],
  },
  ptp: { cniVersion: '1.0.0', name: 'net', plugins: [ptp] },
  loopback: { cniVersion: '1.0.0', name: 'net', plugins: [{ type: 'loopback' }] },
  'bridge and portmap': { cniVersion: '1.0.0', name: 'net', plugins: [bridge, portmap] },
  'ptp and portmap, 0.4.0': { cniVersion: '0.4.0', name: 'net', plugins: [ptp, portmap] },
};

/**
 * The older reference plugins cannot check even their own: bridge without IPAM, and portmap with two
 * families.
 */
const notChecked = ['bridge of layer 2', 'bridge and portmap', 'ptp and portmap, 0.4.0'];

const optionsOf = (network: Conflist): AttachOptions =>
  network.plugins.includes(portmap) ? { capabilities: mappings } : {};

/** One life, each verb by the suite that is given for it. */
async function live(
  host: Host,
  pod: Pod,
  network: Conflist,
  suites: { add: Suite; check: Suite; del: Suite },
): Promise<Attachment> {
  const one = new Attachment(host, pod, network, optionsOf(network));
  await one.add({ suite: suites.add });
  await one.check({ suite: suites.check });
  await one.del({ suite: suites.del });
  return one;
}

for (const [name, network] of Object.entries(networks))
  for (const [add, other] of suitePairs)
    test(`${name}: added by ${add === 'ours' ? 'us' : 'the reference'}, checked and deleted by the other`, async (t) => {
      const host = await makeHost(t);
      const pod = await host.addPod();
      // What each suite leaves behind by design is there before the first picture is taken.
      await live(host, pod, network, { add: 'ours', check: 'ours', del: 'ours' });
      const checkedBy = (suite: Suite) => (notChecked.includes(name) ? 'ours' : suite);
      await live(host, pod, network, { add: 'reference', check: checkedBy('reference'), del: 'reference' });
      const before = await settled(host);
      await live(host, pod, network, { add, check: checkedBy(other), del: other });
      t.deepEqual(await settled(host), before);
      t.deepEqual(
        (await links(pod)).map(({ ifname }) => ifname),
        ['lo'],
      );
    });

/**
 * Leaves out what only our suite keeps: the index of owners, whose stamp depends on which suite came last,
 * and the hints about the holders of ports, which GC removes.
 */
async function settled(host: Host): Promise<unknown> {
  const { files, ...rest } = await snapshot(host);
  return {
    ...rest,
    files: Object.keys(files as object).filter((file) => !/\/\.owners\/|^\/run\/cni\/portmap\//.test(file)),
  };
}

for (const [name, network] of Object.entries(networks))
  test(`${name}: the same result, addresses, routes and rules as the reference`, async (t) => {
    const seen = [];
    for (const suite of ['ours', 'reference'] as const) {
      const host = await makeHost(t);
      const pod = await host.addPod();
      const one = new Attachment(host, pod, network, { ...optionsOf(network), containerId: 'one', suite });
      const result = await one.add();
      seen.push({
        result: anonymous(result, pod),
        pod: await picture(pod),
        host: await picture(host),
        nat: { 4: sorted(await iptablesSave(host, 'nat', 4)), 6: sorted(await iptablesSave(host, 'nat', 6)) },
      });
    }
    t.deepEqual(seen[0], seen[1]);
  });

const sorted = (lines: string[]) => lines.sort();

/** A result without random names, MAC addresses and the sandbox's path. */
function anonymous({ interfaces = [], dns, ...rest }: PrintedResult, pod: Pod): unknown {
  return {
    ...rest,
    dns: { ...dns },
    interfaces: interfaces.map(({ name, mac, sandbox }) => ({
      name: name.replace(/^veth[0-9a-f]{8}$/, 'veth'),
      mac: Boolean(mac),
      sandbox: sandbox === pod.netns,
    })),
  };
}

async function picture(ns: Namespace): Promise<unknown> {
  const route = ({ dst, gateway, dev = '', prefsrc, scope, metric }: IpRoute) =>
    JSON.stringify({ dst, gateway, dev: dev.replace(/^veth.*/, 'veth'), prefsrc, scope, metric });
  const all = await links(ns);
  return {
    links: all
      .map(({ ifname, mtu, flags, addr_info = [] }) => ({
        ifname: ifname.replace(/^veth.*/, 'veth'),
        mtu,
        up: flags.includes('UP'),
        addresses: addr_info
          .filter(({ family, scope }) => !(family === 'inet6' && scope === 'link'))
          .map(({ local, prefixlen, scope }) => `${local}/${prefixlen} ${scope}`)
          .sort(),
      }))
      .sort((a, b) => (a.ifname < b.ifname ? -1 : 1)),
    routes: [...(await routes(ns, 4)), ...(await routes(ns, 6))]
      .filter(({ dst }) => !dst.startsWith('fe80'))
      .map(route)
      .sort(),
    rules: await ipJson(ns, 'rule'),
  };
}

test('the same bad input gives the same error codes', async (t: ExecutionContext) => {
  const conf = (keys: object) => ({ cniVersion: '1.0.0', name: 'net', ...bridge, ...keys });
  const cases: [plugin: string, command: string, call: Parameters<typeof runPlugin>[3]][] = [
    ['bridge', 'ADD', { config: '{"cniVersion": "1.0.0", ' }],
    ['bridge', 'ADD', { config: conf({ ipMasq: 'yes' }) }],
    ['bridge', 'ADD', { config: conf({ mtu: {} }) }],
    ['bridge', 'ADD', { config: conf({ cniVersion: '3.0.0' }) }],
    ['bridge', 'ADD', { config: conf({ name: 'a/../b' }) }],
    ['bridge', 'ADD', { config: conf({ hairpinMode: true, promiscMode: true }) }],
    ['bridge', 'ADD', { config: conf({ vlan: 5000 }) }],
    ['bridge', 'ADD', { config: conf({ ipam: { type: 'none-such' } }) }],
    ['bridge', 'ADD', { config: conf({ ipam: { type: '../../bin/sh' } }) }],
    ['bridge', 'ADD', { config: conf({ bridge: 'lo' }) }],
    ['bridge', 'ADD', { config: conf({ bridge: 'a-name-of-16byte' }) }],
    ['bridge', 'ADD', { config: conf({}), netns: '/nonexistent' }],
    ['bridge', 'ADD', { config: conf({}), netns: '/etc/passwd' }],
    ['bridge', 'ADD', { config: conf({}), ifname: 'eth/0' }],
    ['bridge', 'ADD', { config: conf({}), containerId: 'a b' }],
    ['bridge', 'ADD', { config: conf({}), args: 'Foo=1' }],
    ['bridge', 'CHECK', { config: conf({ cniVersion: '0.3.1' }) }],
    ['bridge', 'CHECK', { config: conf({}) }],
    ['bridge', 'DEL', { config: conf({}), netns: '/nonexistent' }],
    ['bridge', 'DEL', { config: conf({}), netns: '' }],
    ['ptp', 'ADD', { config: { ...conf({}), ...ptp, ipam: undefined } }],
    ['ptp', 'DEL', { config: { ...conf({}), ...ptp }, netns: '' }],
    ['portmap', 'ADD', { config: conf({ type: 'portmap' }) }],
    ['portmap', 'ADD', { config: conf({ type: 'portmap', markMasqBit: 40, prevResult: { ips: [] } }) }],
    ['portmap', 'DEL', { config: conf({ type: 'portmap' }) }],
    ['loopback', 'ADD', { config: conf({ type: 'loopback' }), netns: '/nonexistent' }],
    ['loopback', 'DEL', { config: conf({ type: 'loopback' }), netns: '/nonexistent' }],
    ['loopback', 'CHECK', { config: conf({ type: 'loopback' }) }],
  ];
  const host = await makeHost(t);
  const pod = await host.addPod();
  for (const [plugin, command, call] of cases) {
    const run = (suite: Suite): Promise<Outcome> => runPlugin(host, plugin, command, { pod, suite, ...call });
    const before = await settled(host);
    const ours = await run('ours');
    if (command === 'ADD') {
      const after = await settled(host);
      t.deepEqual(
        withoutEmptyDirectories(after),
        withoutEmptyDirectories(before),
        `${plugin} ${JSON.stringify(call)} left something`,
      );
    }
    const theirs = await run('reference');
    const what = `${plugin} ${command} ${JSON.stringify(call)}\n${ours.stdout}\n${theirs.stdout}`;
    t.deepEqual([ours.exit, ours.error?.code], [theirs.exit, theirs.error?.code], what);
    if (ours.error) t.true(ours.error.msg.length > 20, what);
    t.notRegex(ours.stdout + ours.stderr, /\n\s+at /, 'no stack trace');
  }
});

/** A failed ADD may leave the bridge, the lock file and the empty NAT table that all containers share. */
function withoutEmptyDirectories(picture: unknown): unknown {
  const {
    files,
    links: all,
    ruleset,
    routes: found,
    ...rest
  } = picture as {
    files: string[];
    links: { ifname: string }[];
    ruleset: string[];
    routes: string[];
  };
  return {
    ...rest,
    links: all.filter(({ ifname }) => ifname !== 'br0'),
    routes: found.filter((line) => !line.includes('br0')),
    files: files.filter((file) => !/\/(lock|\.stamp)$/.test(file)),
    rules: ruleset.filter((line) => /CNI-[0-9a-f]/.test(line)),
  };
}
