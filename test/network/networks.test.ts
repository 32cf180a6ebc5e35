/** Runs once: no agent takes part. */

import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { load } from 'js-yaml';
import { attach, type Conflist, sample } from '../support/chain.ts';
import { command } from '../support/command.ts';
import { makeHost, makeHostWithDevices } from '../support/host.ts';
import { ping } from '../support/observe.ts';
import { suites } from '../support/plugin.ts';

const bridge = (name: string, br: string, ...subnets: string[]) => ({
  ...{ cniVersion: '1.1.0', name },
  plugins: [
    {
      ...{ type: 'bridge', bridge: br, isGateway: true },
      ipam: { type: 'host-local', ranges: subnets.map((subnet) => [{ subnet }]) },
    },
  ],
});

interface Network {
  name: string;
  ranges: { subnets: string[]; gateways: string[]; capacity: number; used: number; free: number }[];
  attachments: { name: string; ips: string[] }[];
  problems: string[];
}

async function hostWith(t: ExecutionContext, ...networks: { name: string }[]) {
  const host = await makeHostWithDevices(t);
  for (const network of networks)
    writeFileSync(host.file(`/etc/cni/net.d/${network.name}.conflist`), JSON.stringify(network));
  const run = (...args: string[]) =>
    host.tryRun([command, 'network', ...args], { env: { CNI_PATH: suites.ours } });
  const files = () => readdirSync(host.file('/etc/cni/net.d')).sort();
  const created = (name: string) => {
    const file = files().find((one) => one.endsWith(`-${name}.conflist`));
    return JSON.parse(readFileSync(host.file(`/etc/cni/net.d/${file}`), 'utf8')) as Conflist;
  };
  return { host, run, created, files };
}

test('network ls counts what each range can give away and has given, and inspect says to whom', async (t) => {
  const tiny = bridge('tiny', 'br-tiny', '10.7.0.0/30');
  const { host, run } = await hostWith(t, tiny, bridge('dual', 'br-dual', '10.8.0.0/24', 'fd08::/64'));
  const empty = await run('ls');
  t.is(empty.exit, 0, empty.stderr);
  t.regex(empty.stdout, /^NETWORK +PLUGINS +SUBNET +GATEWAY +SIZE +USED +FREE +PODS +FILE\n/);
  t.regex(empty.stdout, /^tiny +bridge +10\.7\.0\.0\/30 +10\.7\.0\.1 +1 +0 +1 +0 +tiny\.conflist$/m);
  t.regex(empty.stdout, /^dual +bridge +10\.8\.0\.0\/24 +10\.8\.0\.1 +253 +0 +253 +0 +dual\.conflist$/m);
  t.regex(empty.stdout, /^dual +bridge +fd08::\/64 +fd08::1 +1\.8e19 +0 /m);

  // The size is what ADD can really give.
  const { netns } = await host.addPod();
  const add = (path: string) =>
    host.tryRun([command, 'add', 'tiny', path], { env: { CNI_PATH: suites.ours } });
  t.is((await add(netns)).exit, 0);
  t.is((await add((await host.addPod()).netns)).exit, 1);
  const full = await run('ls');
  t.is(full.exit, 1);
  t.regex(full.stdout, /^tiny .* 1 +1 +0 +1 +tiny\.conflist$/m);
  t.regex(full.stdout, /^tiny: All addresses of 10\.7\.0\.1-10\.7\.0\.2 are given away/m);

  const inspected = await run('inspect', 'tiny');
  t.is(inspected.exit, 1);
  const [network] = JSON.parse(inspected.stdout) as [Network];
  t.deepEqual(
    network.ranges.map(({ capacity, used, free }) => [capacity, used, free]),
    [[1, 1, 0]],
  );
  t.deepEqual(
    network.attachments.map(({ ips }) => ips),
    [['10.7.0.2']],
  );
  t.deepEqual(load((await run('inspect', 'tiny', '-o', 'yaml')).stdout), [network]);
  t.is((await run('ls', '-o', 'name')).stdout, 'dual\ntiny\n');
  const unknown = await run('inspect', 'nope');
  t.is(unknown.exit, 1);
  t.regex(unknown.stderr, /"nope"/);

  rmSync(host.file('/etc/cni/net.d/tiny.conflist'));
  t.regex(
    (await run('ls')).stdout,
    /^tiny .*\(removed\)\n[\s\S]*configuration was removed, but it has attachments/m,
  );
});

test('network ls shows networks that are in each other’s way, and files that cannot be used', async (t) => {
  const { host, run } = await hostWith(
    t,
    bridge('a', 'br-a', '10.7.0.0/24'),
    bridge('b', 'br-b', '10.7.0.0/25'),
  );
  writeFileSync(host.file('/etc/cni/net.d/99-torn.conflist'), '{"name": "to');
  const { exit, stdout, stderr } = await run('ls');
  t.is(exit, 1);
  t.regex(
    stdout,
    /^b: Addresses 10\.7\.0\.1-10\.7\.0\.126 overlap with 10\.7\.0\.1-10\.7\.0\.254 of network "a"/m,
  );
  t.regex(stderr, /99-torn\.conflist" cannot be used/);
  const none = await makeHost(t);
  await none.run(['rmdir', '/etc/cni/net.d']);
  const missing = await none.tryRun([command, 'network', 'ls']);
  t.is(missing.exit, 1);
  t.regex(missing.stderr, /"\/etc\/cni\/net\.d" does not exist, .*"cni network create NAME"/);
  const create = async (name: string) => {
    const env = { CNI_PATH: suites.ours };
    const { exit, stderr } = await none.tryRun([command, 'network', 'create', name], { env });
    t.is(exit, 0, stderr);
    return readdirSync(none.file('/etc/cni/net.d')).sort();
  };
  t.deepEqual(await create('second'), ['90-second.conflist']);
  t.deepEqual(await create('first'), ['90-second.conflist', '99-first.conflist']);
});

test('a network is created before one of loopback alone, from which pods would get nothing but "lo"', async (t) => {
  const host = await makeHost(t);
  mkdirSync(host.file('/etc/cni/net.d'), { recursive: true });
  const sample = join(import.meta.dirname, '../../conf/99-loopback.conf');
  copyFileSync(sample, host.file('/etc/cni/net.d/99-loopback.conf'));
  const env = { CNI_PATH: suites.ours };
  await host.run([command, 'network', 'create', 'podnet'], { env });
  t.deepEqual(readdirSync(host.file('/etc/cni/net.d')).sort(), ['90-podnet.conflist', '99-loopback.conf']);
  t.is((await host.tryRun([command, 'validate', '--no-host', '--strict'], { env })).exit, 0);
});

test('a network that is created works: pods get addresses and reach the host, and it is in nobody’s way', async (t) => {
  const taken = bridge('taken', 'cni0', '10.89.0.0/24');
  const { host, run, created, files } = await hostWith(t, taken);
  await host.run(['ip', 'address', 'add', '10.89.1.7/24', 'dev', 'up0']);
  const dry = await run('create', 'web', '--dry-run');
  t.is(dry.exit, 0, dry.stderr);
  t.deepEqual(files(), ['taken.conflist']);
  const done = await run('create', 'web', '--ipv6');
  t.is(done.exit, 0, done.stderr);
  t.is(done.stdout, 'web\n');
  t.deepEqual(files(), ['taken.conflist', 'zz-web.conflist'], 'runtimes take the first');
  const { plugins } = created('web');
  t.deepEqual(
    plugins.map(({ type }) => type),
    ['bridge', 'portmap', 'firewall'],
  );
  t.is(plugins[0]!.bridge, 'cni1');
  const valid = await host.tryRun([command, 'validate', '--strict'], { env: { CNI_PATH: suites.ours } });
  t.is(valid.exit, 0, valid.stdout);
  const web = await attach(host, created('web'), {
    capabilities: { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] },
  });
  t.regex(web.ip, /^10\.89\.2\./);
  t.true(await ping(web.pod, '10.89.2.1'));
  t.regex(await web.pod.run(['ip', '-6', 'address', 'show', 'dev', 'eth0', 'scope', 'global']), /inet6 fd/);
  t.regex(await host.run(['iptables-save', '-t', 'nat']), /dport 8080/);
  await web.check();
  await web.del();

  const again = await run('create', 'web');
  t.is(again.exit, 1);
  t.regex(again.stderr, /"web" exists already/);
});

test('networks that are created beside flannel, or at the same time, have bridges and subnets of their own', async (t) => {
  const flannel = { cniVersion: '1.0.0', name: 'flannelnet', plugins: [{ type: 'flannel' }] };
  const { host, run, created } = await hostWith(t, flannel);
  const names = ['a', 'b', 'c', 'd'];
  const done = await Promise.all(names.map((name) => run('create', name)));
  for (const { exit, stderr } of done) t.is(exit, 0, stderr);
  const mains = names.map(
    (name) => created(name).plugins[0] as unknown as { bridge: string; ipam: { ranges: object } },
  );
  t.deepEqual(mains.map(({ bridge }) => bridge).sort(), ['cni1', 'cni2', 'cni3', 'cni4']);
  t.is(new Set(mains.map(({ ipam }) => JSON.stringify(ipam.ranges))).size, 4);
  const validate = () => host.tryRun([command, 'validate', '--strict'], { env: { CNI_PATH: suites.ours } });
  t.notRegex((await validate()).stdout, /Bridge "/);
  const taken = await run('create', 'e', '--bridge', 'cni0');
  t.is(taken.exit, 1);
  t.regex(
    taken.stderr,
    /Bridge "cni0" gets a gateway address in 10\.\S+ here and in the subnet of "flannel" in network/,
  );
});

test('options of network create', async (t) => {
  const { run, created } = await hostWith(t);
  const range = ['--subnet', '10.5.0.0/24', '--gateway', '10.5.0.254', '--ip-range', '10.5.0.128/25'];
  t.is(
    (await run('create', 'a', ...range, '--internal', '--isolate', '--mtu', '1400', '--bridge', 'br-a')).exit,
    0,
  );
  const [main, firewall] = created('a').plugins;
  t.like(main, { bridge: 'br-a', isGateway: false, ipMasq: false, mtu: 1400 });
  t.deepEqual(main!.ipam, {
    type: 'host-local',
    ranges: [
      [{ subnet: '10.5.0.0/24', gateway: '10.5.0.254', rangeStart: '10.5.0.128', rangeEnd: '10.5.0.254' }],
    ],
  });
  t.deepEqual(firewall, { type: 'firewall', ingressPolicy: 'same-bridge' });
  const parts = [
    '--subnet',
    '10.5.9.0/24',
    '--ip-range',
    '10.5.9.10-10.5.9.19',
    '--ip-range',
    '10.5.9.128/25',
  ];
  t.is((await run('create', 'parts', ...parts, '--gateway', '10.5.9.9')).exit, 0);
  t.deepEqual((created('parts').plugins[0]!.ipam as { ranges: object }).ranges, [
    [
      { subnet: '10.5.9.0/24', gateway: '10.5.9.9', rangeStart: '10.5.9.10', rangeEnd: '10.5.9.19' },
      { subnet: '10.5.9.0/24', gateway: '10.5.9.9', rangeStart: '10.5.9.128', rangeEnd: '10.5.9.254' },
    ],
  ]);
  t.is((await run('create', 'p', '-d', 'ptp', '--no-ports', '--no-firewall')).exit, 0);
  t.deepEqual(
    created('p').plugins.map(({ type }) => type),
    ['ptp'],
  );
  t.is((await run('create', 'm', '-d', 'macvlan', '-p', 'up0', '--subnet', '10.6.0.0/24')).exit, 0);
  t.like(created('m').plugins[0], { type: 'macvlan', master: 'up0' });
});

test('what cannot work is refused, and nothing is written', async (t) => {
  const { host, run, files } = await hostWith(t, bridge('taken', 'br-t', '10.7.0.0/24'));
  for (const [exit, message, ...args] of [
    [1, /overlap/, 'x', '--subnet', '10.7.0.0/25'],
    [1, /nowhere0/, 'x', '-d', 'macvlan', '-p', 'nowhere0', '--subnet', '10.6.0.0/24'],
    [2, /--subnet is "10\.7\.0\.0\/40"/, 'x', '--subnet', '10.7.0.0/40'],
    [2, /--gateway "10\.9\.0\.1" is in no subnet/, 'x', '--subnet', '10.8.0.0/24', '--gateway', '10.9.0.1'],
    [2, /needs an interface of the host/, 'x', '-d', 'ipvlan'],
    [2, /--vlan is for bridges/, 'x', '-d', 'ptp', '--vlan', '5'],
    [2, /must begin with a letter/, '../x'],
    [2, /--mtu is 10, but it must be one whole number from 68 to 65535/, 'x', '--mtu', '10'],
    [2, /--mtu is no number/, 'x', '--mtu', 'big'],
    [2, /--vlan is no number/, 'x', '--vlan', 'ten'],
    [2, /--vlan is given twice/, 'x', '--vlan', '5', '--vlan', '6'],
    [2, /DHCP, which gives pods a default route/, 'x', '-d', 'macvlan', '-p', 'up0', '--internal'],
    [2, /DHCP, which gives only IPv4 addresses/, 'x', '-d', 'ipvlan', '-p', 'up0', '--ipv6'],
    [2, /--ports is for bridge and ptp/, 'x', '-d', 'macvlan', '-p', 'up0', '--ports'],
    [2, /--internal and --ports exclude/, 'x', '--internal', '--ports'],
    [
      2,
      /--gateway "10\.8\.0\.1" and "10\.8\.0\.2" are of one subnet, 10\.8\.0\.0\/24/,
      ...['x', '--subnet', '10.8.0.0/24', '--gateway', '10.8.0.1', '--gateway', '10.8.0.2'],
    ],
  ] as [number, RegExp, ...string[]][]) {
    const output = await run('create', ...args);
    t.is(output.exit, exit, output.stderr);
    t.regex(output.stderr, message);
    t.notRegex(output.stderr, /\n {4}at /);
  }
  t.deepEqual(files(), ['taken.conflist']);
  await host.run(['mount', '-o', 'remount,ro', '/etc/cni']);
  const readOnly = await run('create', 'x');
  t.is(readOnly.exit, 1);
  t.regex(readOnly.stderr, /Cannot create .*-x\.conflist"[\s\S]*EROFS/);
});

test('networks that multus has in its own configuration, and those of nerdctl, are not taken for removed', async (t) => {
  const { host, run } = await hostWith(t, sample('83-multus.conflist') as never);
  const cni = (...args: string[]) => host.tryRun([command, ...args], { env: { CNI_PATH: suites.ours } });
  await host.run(['mkdir', '/etc/cni/net.d/shop']);
  writeFileSync(
    host.file('/etc/cni/net.d/shop/nerdctl-web.conflist'),
    JSON.stringify(bridge('web', 'br-web', '10.7.0.0/24')),
  );
  const NETCONFPATH = '/etc/cni/net.d/shop';
  const [pod, container] = [await host.addPod(), await host.addPod()];
  t.is((await cni('add', 'multusnet', pod.netns)).exit, 0);
  const added = await host.tryRun([command, 'add', 'web', container.netns], {
    env: { CNI_PATH: suites.ours, NETCONFPATH },
  });
  t.is(added.exit, 0, added.stderr);
  const listed = await run('ls');
  t.is(listed.exit, 0, listed.stdout + listed.stderr);
  t.regex(listed.stdout, /^multusnet-default .* 1 +\(delegated\)$/m);
  t.regex(listed.stdout, /^web .* 1 +nerdctl-web\.conflist$/m);
  t.notRegex(listed.stdout, /removed/);
  for (const one of [pod, container]) await one.remove();
  const { exit, stdout, stderr } = await cni('gc');
  t.deepEqual([exit, stderr], [0, ''], stdout);
  t.is(stdout.match(/^Removed /gm)?.length, 3, stdout);
});
