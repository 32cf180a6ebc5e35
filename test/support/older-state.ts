/**
 * What a release of this suite leaves on a host for a running pod: files, rules, interfaces. It is recorded
 * with the executables of older releases, see record.ts in test/fixtures/older, and restored on test hosts,
 * so that tests do not need the releases.
 */

import { mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { Attachment, type AttachOptions, type Conflist, type PluginConf } from './chain.ts';
import { dropForwarded } from './firewall.ts';
import { type Host, makeHost, Pod, type Teardown } from './host.ts';
import { files, type IpLink, type IpRoute, ipJson } from './observe.ts';
import type { PrintedResult } from './plugin.ts';

/** Networks whose state is recorded, by what they are for. */
export const recordedNetworks: Readonly<Record<string, Conflist>> = {
  iptables: networkOf(
    { type: 'bridge', bridge: 'br0', isGateway: true, hairpinMode: true, ipMasq: true },
    { type: 'portmap', backend: 'iptables', capabilities: { portMappings: true } },
    { type: 'firewall', backend: 'iptables' },
    { type: 'tuning', mac: '02:00:00:00:00:77', sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' } },
  ),
  nftables: networkOf(
    {
      ...{ type: 'bridge', bridge: 'br0', isGateway: true, macspoofchk: true },
      ...{ ipMasq: true, ipMasqBackend: 'nftables' },
    },
    { type: 'portmap', backend: 'nftables', capabilities: { portMappings: true } },
  ),
  'firewall with nftables': networkOf(
    { type: 'bridge', bridge: 'br0', isGateway: true },
    { type: 'firewall', backend: 'nftables' },
  ),
  ptp: networkOf(
    { type: 'ptp', ipMasq: true },
    { type: 'portmap', backend: 'iptables', capabilities: { portMappings: true } },
  ),
};

/** What the runtime passes along. */
export const recordedCapabilities = {
  portMappings: [
    { hostPort: 8080, containerPort: 80, protocol: 'tcp' },
    { hostPort: 5353, containerPort: 53, protocol: 'udp' },
  ],
};

/** A chain whose first plugin gives addresses of both families. */
function networkOf(first: PluginConf, ...more: PluginConf[]): Conflist {
  const ranges = [[{ subnet: '10.42.0.0/24' }], [{ subnet: 'fd00:42::/64' }]];
  const ipam = { type: 'host-local', ranges, routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }] };
  return { cniVersion: '1.1.0', name: 'net', plugins: [{ ...first, ipam }, ...more] };
}

/** The state of one pod. */
export interface RecordedState {
  readonly network: Conflist;
  /** Of the last plugin. */
  readonly result: PrintedResult;
  /** Contents by path, below /var/lib/cni and /run/cni. */
  readonly files: Readonly<Record<string, string>>;
  /** Input of iptables-restore, ip6tables-restore and nft; the last is "" where iptables made all rules. */
  readonly rules: Readonly<Record<'iptables' | 'ip6tables' | 'nft', string>>;
  /** Input of `ip -batch` that recreates the interfaces, on the host and in the pod. */
  readonly links: Readonly<Record<'host' | 'pod', readonly string[]>>;
}

const podName = 'pod-recorded';

/** A host with forwarding and a firewall, so that the plugin of that name has something to open. */
async function makeFirewalledHost(t: Teardown): Promise<Host> {
  const host = await makeHost(t);
  await dropForwarded(host);
  return host;
}

async function recordedPod(host: Host): Promise<Pod> {
  await host.run(['ip', 'netns', 'add', podName]);
  return new Pod(host, podName);
}

/** Adds a pod with the executables under test. @returns its state, and the attachment. */
export async function recordState(
  t: Teardown,
  network: Conflist,
): Promise<{ state: RecordedState; one: Attachment }> {
  const host = await makeFirewalledHost(t);
  const pod = await recordedPod(host);
  const one = new Attachment(host, pod, network, optionsOf());
  const result = await one.add();
  const usesNft = JSON.stringify(network).includes('"nftables"');
  const state = {
    network,
    result,
    files: { ...files(host, '/var/lib/cni'), ...files(host, '/run/cni') },
    rules: {
      iptables: usesNft ? '' : await host.run(['iptables-save']),
      ip6tables: usesNft ? '' : await host.run(['ip6tables-save']),
      nft: usesNft ? await host.run(['nft', '--stateless', 'list', 'ruleset']) : '',
    },
    links: { host: await linksOf(host, one), pod: await addressesOf(pod) },
  };
  return { state, one };
}

function optionsOf(): AttachOptions {
  return { capabilities: recordedCapabilities };
}

/** `ip` commands that recreate the interfaces of the result, with their addresses on the host. */
async function linksOf(host: Host, one: Attachment): Promise<string[]> {
  const [bridge] = await ipJson<IpLink>(host, 'link', 'show', 'type', 'bridge');
  const [veth] = await ipJson<IpLink>(host, 'link', 'show', 'type', 'veth');
  const [inside] = await ipJson<IpLink>(one.pod, 'link', 'show', 'type', 'veth');
  const { ifname, address } = veth!;
  return [
    ...(bridge ? [`link add ${bridge.ifname} address ${bridge.address} type bridge`] : []),
    `link add ${ifname} address ${address} type veth peer name eth0 address ${inside!.address} netns ${podName}`,
    ...(bridge ? [`link set ${ifname} master ${bridge.ifname}`, `link set ${bridge.ifname} up`] : []),
    ...(one.network.plugins[0]!.hairpinMode ? [`link set ${ifname} type bridge_slave hairpin on`] : []),
    `link set ${ifname} up`,
    ...(await addressesOf(host, 'lo')),
  ];
}

/** `ip` commands that give a namespace's interfaces their addresses and routes. */
async function addressesOf(ns: Host | Pod, except = ''): Promise<string[]> {
  const all = await ipJson<IpLink>(ns, 'addr');
  const own = all.filter(({ ifname }) => ifname !== except && ifname !== 'lo');
  const routes = [
    ...(await ipJson<IpRoute>(ns, '-4', 'route')),
    ...(await ipJson<IpRoute>(ns, '-6', 'route')),
  ].filter(({ dst, protocol }) => protocol !== 'kernel' && !dst.startsWith('fe80'));
  return [
    ...(ns instanceof Pod ? ['link set eth0 up'] : []),
    ...own.flatMap(({ ifname, addr_info = [] }) =>
      addr_info
        .filter(({ scope }) => scope !== 'link')
        .map(({ local, prefixlen, family }) =>
          [`address add ${local}/${prefixlen} dev ${ifname}`, family === 'inet6' ? 'nodad' : '']
            .join(' ')
            .trim(),
        ),
    ),
    // Routes without a gateway first: gateways are reached through them.
    ...routes
      .toSorted((a, b) => Number(Boolean(a.gateway)) - Number(Boolean(b.gateway)))
      .map(({ dst, gateway, dev, prefsrc, scope }) =>
        [
          `route replace ${dst}`,
          gateway ? `via ${gateway}` : '',
          `dev ${dev}`,
          prefsrc ? `src ${prefsrc}` : '',
          scope ? `scope ${scope}` : '',
        ]
          .filter(Boolean)
          .join(' '),
      ),
  ];
}

/** A host on which an older release has added a pod. */
export async function restoreState(
  t: Teardown,
  state: RecordedState,
): Promise<{ host: Host; one: Attachment }> {
  const host = await makeFirewalledHost(t);
  const pod = await recordedPod(host);
  const batch = (ns: Host | Pod, lines: readonly string[]) =>
    ns.run(['ip', '-batch', '-'], { stdin: lines.map((line) => `${line}\n`).join('') });
  await batch(host, state.links.host);
  await batch(pod, state.links.pod);
  await host.run(['sh', '-c', 'echo 1 >/proc/sys/net/ipv4/ip_forward']);
  await host.run(['sh', '-c', 'echo 1 >/proc/sys/net/ipv6/conf/all/forwarding']);
  await pod.run(['sh', '-c', 'echo 1 >/proc/sys/net/ipv4/conf/eth0/arp_filter']);
  const { iptables, ip6tables, nft } = state.rules;
  if (nft) await host.run(['nft', '-f', '-'], { stdin: `flush ruleset\n${nft}` });
  if (iptables) await host.run(['iptables-restore'], { stdin: iptables });
  if (ip6tables) await host.run(['ip6tables-restore'], { stdin: ip6tables });
  for (const [path, text] of Object.entries(state.files)) {
    mkdirSync(dirname(host.file(path)), { recursive: true });
    writeFileSync(host.file(path), text, { encoding: 'latin1', mode: 0o600 });
  }
  const one = new Attachment(host, pod, state.network, optionsOf());
  one.result = state.result;
  return { host, one };
}

/** A state in which everything that differs from pod to pod is replaced, for comparison. */
export function withoutNames(state: RecordedState): RecordedState {
  const text = JSON.stringify(state)
    .replaceAll(/veth[0-9a-f]{8}/g, 'veth')
    .replaceAll(/(?:[0-9a-f]{2}:){5}[0-9a-f]{2}/g, 'MAC')
    .replaceAll(/\[\d+:\d+\]/g, '[0:0]')
    .replaceAll(/# (?:Generated by|Completed on) [^\\]*/g, '');
  return JSON.parse(text) as RecordedState;
}

const directory = join(import.meta.dirname, '../fixtures/older');

/** Reads what was recorded. @param release abbreviated hash of a commit. */
export function readRecorded(release: string): Record<string, RecordedState> {
  return JSON.parse(readFileSync(join(directory, `${release}.json`), 'utf8')) as Record<
    string,
    RecordedState
  >;
}
