/**
 * Who may read what plugins write: root alone, whatever umask the runtime has. The reservations of host-local
 * are readable by all, as those of the reference are, so that the same tools can be used with either suite.
 */

import { lstatSync, mkdirSync, readdirSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { attach, type Conflist, type PluginConf, runNetworkVerb } from '../support/chain.ts';
import { dhcpNetwork, dhcpSample, dnsmasq } from '../support/dhcp.ts';
import { Host, makeHostWithDevices } from '../support/host.ts';
import { until } from '../support/observe.ts';
import { changed } from '../support/outside.ts';
import { suites } from '../support/plugin.ts';

/** A host on which programs have another umask. */
class HostWithUmask extends Host {
  override readonly enter: readonly string[];

  constructor(host: Host, umask: string) {
    super(host.pid);
    this.enter = [...host.enter, 'sh', '-c', `umask ${umask}; exec "$@"`, 'sh'];
  }
}

/** Paths that are not for root alone in the reference, and so not in this suite either. */
const asReference: readonly (readonly [path: RegExp, mode: number])[] = [
  [/^\/var\/lib\/cni(?:\/networks(?:\/[^./][^/]*)?)?$/, 0o755],
  [/^\/var\/lib\/cni\/networks\/[^/]+\/lock$/, 0o750],
];

/** Everything below a directory, and the directory itself, with its mode. */
function* walk(host: Host, path: string): Generator<{ path: string; mode: number; isDirectory: boolean }> {
  const status = lstatSync(host.file(path), { throwIfNoEntry: false });
  if (!status) return;
  yield { path, mode: status.mode & 0o7777, isDirectory: status.isDirectory() };
  if (status.isDirectory())
    for (const name of readdirSync(host.file(path))) yield* walk(host, join(path, name));
}

/** Compares all that was written with what it should be. @returns the paths. */
function inspect(t: ExecutionContext, host: Host, umask: number): string[] {
  const all = [...walk(host, '/run/cni'), ...walk(host, '/var/lib/cni')].filter(
    // The test itself has made this one.
    ({ path }) => path !== '/var/lib/cni',
  );
  for (const { path, mode, isDirectory } of all) {
    const [, wanted = isDirectory ? 0o700 : 0o600] =
      asReference.find(([pattern]) => pattern.test(path)) ?? [];
    t.is(mode.toString(8), (wanted & ~umask).toString(8), path);
  }
  return all.map(({ path }) => path);
}

const ipam = { type: 'host-local', subnet: '10.45.0.0/16' };
const bridge = { type: 'bridge', bridge: 'br0', isGateway: true, ipMasq: true, ipam };
const bandwidth = { ingressRate: 1e6, ingressBurst: 1e6, egressRate: 1e6, egressBurst: 1e6 };
const capabilities = { portMappings: [{ hostPort: 8080, containerPort: 80 }] };

function networkOf(name: string, ...plugins: PluginConf[]): Conflist {
  return { cniVersion: '1.1.0', name, plugins };
}

/** Networks that between them have every plugin that keeps files. */
const networks = [
  networkOf(
    'iptables',
    bridge,
    { type: 'portmap', backend: 'iptables', capabilities: { portMappings: true } },
    { type: 'firewall', backend: 'iptables' },
    { type: 'bandwidth', ...bandwidth },
    { type: 'tuning', mac: '02:00:00:00:00:77', dataDir: '/var/lib/cni/tuning' },
    { type: 'sbr' },
  ),
  networkOf(
    'nftables',
    { ...bridge, ipMasqBackend: 'nftables', macspoofchk: true },
    { type: 'firewall', backend: 'nftables' },
    { type: 'tuning', mtu: 1400 },
  ),
  networkOf('ptp', { type: 'ptp', ipam }),
  networkOf('macvlan', { type: 'macvlan', master: 'up0', ipam }),
  networkOf('tap', { type: 'tap', ipam }),
  networkOf('host-device', { type: 'host-device', device: 'dev0', ipam }),
  networkOf('flannel', { type: 'flannel' }),
];

for (const [umask, bits] of [
  ['000', 0],
  ['077', 0o077],
] as const) {
  test(`under umask ${umask} every file of every plugin is for whom it is meant`, async (t) => {
    const plain = await makeHostWithDevices(t, { mayHaveAgent: false });
    const host = new HostWithUmask(plain, umask);
    mkdirSync(host.file('/run/flannel'));
    const lease = { NETWORK: '10.244.0.0/16', SUBNET: '10.244.1.1/24', MTU: '1450', IPMASQ: 'true' };
    const lines = Object.entries(lease).map(([key, value]) => `FLANNEL_${key}=${value}\n`);
    writeFileSync(host.file('/run/flannel/subnet.env'), lines.join(''));
    if (process.env.CNI_TEST_AGENT) await host.start(t, [join(suites.ours, 'cni'), 'agent']);

    const all = [];
    for (const network of networks) all.push(await attach(host, network, { capabilities }));
    const whileAttached = inspect(t, host, bits);
    for (const part of [
      ...['networks/iptables/10.45.0.2', 'networks/.owners/iptables/stamp', 'networks/ptp/lock'],
      ...['tuning/', 'flannel/container-', '/run/cni/firewall/', '/run/cni/portmap/', '/run/cni/tuning/'],
    ])
      t.true(
        whileAttached.some((path) => path.includes(part)),
        part,
      );
    for (const one of all.reverse()) {
      await one.del();
      t.is((await runNetworkVerb(host, one.network, 'GC', { valid: [] })).exit, 0);
    }
    inspect(t, host, bits);
  });

  test(`under umask ${umask} what the operators' command, the agent and the DHCP daemon write is root's`, async (t) => {
    // The host's own agent would go by its own umask.
    const { host: plain, outside } = await dhcpNetwork(t, { mayHaveAgent: false });
    const host = new HostWithUmask(plain, umask);
    await dnsmasq(t, outside);
    await host.start(t, [
      join(suites.ours, 'cni'),
      'agent',
      '--socket',
      '/run/cni/other.sock',
      '--metrics',
      'unix:/run/cni/metrics.sock',
    ]);
    const daemon = '/run/cni/dhcp.sock';
    await host.start(t, ['sh', '-c', `echo started; exec ${join(suites.ours, 'dhcp')} daemon`]);
    await until('the daemon listens', async () =>
      [...walk(host, '/run/cni')].some(({ path }) => path === daemon),
    );
    const one = await attach(host, changed(dhcpSample, {}));
    writeFileSync(host.file('/etc/cni/net.d/10-net.conflist'), JSON.stringify(networkOf('by-hand', bridge)));
    const pod = await host.addPod();
    await host.run([join(suites.ours, 'cni'), 'add', 'by-hand', pod.netns], {
      env: { CNI_PATH: suites.ours },
    });
    const paths = inspect(t, host, bits);
    for (const part of [daemon, 'dhcp-leases/', 'other.sock', 'metrics.sock', '/results/by-hand-'])
      t.true(
        paths.some((path) => path.includes(part)),
        part,
      );
    await one.del();
  });
}
