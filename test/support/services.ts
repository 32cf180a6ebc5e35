/** A node with pods of several networks, some of which are the endpoints of Services. */

import { type Attachment, attach, type PluginConf, sample } from './chain.ts';
import { writeSubnetEnv } from './flannel.ts';
import { type Host, makeHost, type Pod, type Teardown } from './host.ts';
import type { Cluster, Service } from './kube-proxy/service.ts';
import { type ProxyMode, proxyServices } from './kube-proxy.ts';
import { serve } from './observe.ts';
import { outsideOf } from './outside.ts';
import type { Suite } from './plugin.ts';

export type Family = 4 | 6;
export const families: readonly Family[] = [4, 6];

const clusters: Record<Family, Cluster> = {
  4: { family: 4, podCIDR: '10.244.0.0/16', serviceCIDR: '10.96.0.0/16' },
  6: { family: 6, podCIDR: 'fd00:10:244::/48', serviceCIDR: 'fd00:10:96::/108' },
};

/** Where pods listen. */
const podPort = 8080;
/** Where Services listen. */
export const servicePort = 80;

/** How pods are connected: the plugins of networks, by their names in docs/services.md. */
export type Topologies = Record<string, readonly PluginConf[]>;

/** The plugins that connect pods, alone. */
export const plainTopologies: Topologies = {
  '`bridge`, `hairpinMode`': [bridge(11, { hairpinMode: true })],
  '`bridge`, `promiscMode`': [bridge(12, { promiscMode: true })],
  '`bridge`, neither': [bridge(13, {})],
  '`ptp`': [ptp(14)],
  '`flannel`, `hairpinMode`': sample('40-flannel.conflist').plugins.slice(0, 1),
};

/** The same with the plugin that lets their packets through a firewall. */
export const firewallTopologies: Topologies = {
  '`bridge`, `hairpinMode`, and `firewall`': [bridge(21, { hairpinMode: true }), { type: 'firewall' }],
  '`ptp` and `firewall`': [ptp(22), { type: 'firewall' }],
};

function bridge(number: number, keys: object): PluginConf {
  return {
    type: 'bridge',
    bridge: `br${number}`,
    isGateway: true,
    ipMasq: true,
    ipam: ipam(number),
    ...keys,
  };
}

function ptp(number: number): PluginConf {
  return { type: 'ptp', ipMasq: true, ipam: ipam(number) };
}

function ipam(number: number): object {
  return {
    type: 'host-local',
    ranges: [[{ subnet: `10.244.${number}.0/24` }], [{ subnet: `fd00:10:244:${number}::/64` }]],
    routes: [{ dst: '0.0.0.0/0' }, { dst: '::/0' }],
  };
}

/** The networks that a suite has plugins for: Debian's package of the reference has no flannel. */
export function topologiesOf(suite: Suite, all: Topologies): Topologies {
  const isThere = (plugins: readonly PluginConf[]) =>
    suite === 'ours' || plugins.every(({ type }) => type !== 'flannel');
  return Object.fromEntries(Object.entries(all).filter(([, plugins]) => isThere(plugins)));
}

/** The Services of each network, by their numbers: which pods they lead to, and how. */
export const kinds = { toOther: 1, toItself: 2, toBoth: 3, local: 4, sticky: 5, remote: 6 } as const;
export type Kind = keyof typeof kinds;

/** Two pods of one network, over one family. */
export class Site {
  readonly topology: string;
  readonly family: Family;
  readonly first: Attachment;
  readonly second: Attachment;

  constructor(topology: string, family: Family, first: Attachment, second: Attachment) {
    this.topology = topology;
    this.family = family;
    this.first = first;
    this.second = second;
  }

  ipOf(attachment: Attachment): string {
    return attachment.result!.ips![this.family === 4 ? 0 : 1]!.address.split('/')[0]!;
  }

  clusterIP(kind: Kind): string {
    return this.address('10.96.', 'fd00:10:96::', kind);
  }

  /** The address by which a load balancer would reach the node. */
  externalIP(kind: Kind): string {
    return this.address('198.18.', '2001:db8::', kind);
  }

  nodePort(kind: Kind): number {
    return 30_000 + this.number * 100 + kinds[kind];
  }

  /** Addresses of the node: towards the outside, on `lo`, and the gateway of this network. */
  get nodeAddresses(): string[] {
    return this.family === 4
      ? ['192.0.2.1', '198.51.100.1', `10.244.${this.number}.1`]
      : ['fd00:2::1', 'fd00:198::1', `fd00:10:244:${this.number}::1`];
  }

  services(): Service[] {
    const [first, second] = [this.first, this.second].map((one) => ({ ip: this.ipOf(one), port: podPort }));
    const remote = { ip: outsideAddress(this.family), port: podPort, remote: true };
    const service = (kind: Kind, endpoints: Service['endpoints'], more: Partial<Service> = {}): Service => ({
      name: `default/${kind.toLowerCase()}-${this.number}`,
      clusterIP: this.clusterIP(kind),
      port: servicePort,
      nodePort: this.nodePort(kind),
      externalIPs: [this.externalIP(kind)],
      endpoints,
      ...more,
    });
    return [
      service('toOther', [second!]),
      service('toItself', [first!]),
      service('toBoth', [first!, second!]),
      service('local', [second!, remote], { policy: 'Local' }),
      service('sticky', [first!, second!], { affinity: 10_800 }),
      service('remote', [remote]),
    ];
  }

  /** The third number of the pods' addresses. */
  private get number(): number {
    return Number(this.first.ip.split('.')[2]);
  }

  private address(prefix4: string, prefix6: string, kind: Kind): string {
    return this.family === 4
      ? `${prefix4}${kinds[kind]}.${this.number}`
      : `${prefix6}${kinds[kind]}:${this.number}`;
  }
}

/** The address of the machine that stands for clients and other nodes. */
export function outsideAddress(family: Family): string {
  return family === 4 ? '192.0.2.2' : 'fd00:2::2';
}

export interface ServiceNode {
  host: Host;
  outside: Pod;
  sites: Site[];
}

/**
 * Makes a node with two pods of each network, and Services that lead to them. All pods
 * and the outside answer, with their container ID or "outside".
 */
export async function makeServiceNode(
  t: Teardown,
  suite: Suite,
  mode: ProxyMode,
  topologies: Topologies,
): Promise<ServiceNode> {
  const host = await makeHost(t);
  writeSubnetEnv(host, 1);
  const outside = await outsideOf(host);
  for (const address of ['198.51.100.1/32', 'fd00:198::1/128'])
    await host.run(['ip', 'addr', 'add', address, 'dev', 'lo']);
  // Each is the other's default gateway, also to the addresses of Services.
  for (const [ns, last] of [
    [host, 2],
    [outside, 1],
  ] as const)
    for (const gateway of [`192.0.2.${last}`, `fd00:2::${last}`])
      await ns.run(['ip', 'route', 'add', 'default', 'via', gateway]);
  await serve(t, outside, 'tcp', podPort, 'outside');

  const sites: Site[] = [];
  for (const [topology, plugins] of Object.entries(topologies)) {
    const network = { cniVersion: '1.0.0', name: `net-${sites.length}`, plugins: [...plugins] };
    const [first, second] = [await attach(host, network, { suite }), await attach(host, network, { suite })];
    for (const { pod } of [first, second]) await serve(t, pod, 'tcp', podPort, pod.containerId);
    for (const family of families) sites.push(new Site(topology, family, first, second));
  }
  for (const family of families) {
    const services = sites.filter((site) => site.family === family).flatMap((site) => site.services());
    await proxyServices(host, mode, clusters[family], services);
  }
  return { host, outside, sites };
}
