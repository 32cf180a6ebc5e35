/**
 * The network that all nodes share, as stored in key "config" below the prefix in etcd. Source: flannel's
 * Documentation/configuration.md, backends.md.
 */

import { parseJson } from '../../lib/cni/json.ts';
import { boolean, convert, decode, integer, object, string, withDefault } from '../../lib/cni/schema.ts';
import { Address, type Family, Prefix } from '../../lib/ip.ts';

/** The range of one family, of which each node gets a part. */
export interface Range {
  readonly network: Prefix;
  /** Prefix length of a node's subnet. */
  readonly length: number;
  /** First address of the first subnet that can be leased, and of the last one. */
  readonly first: Address;
  readonly last: Address;
}

/** How packets get to other nodes. */
export interface Backend {
  readonly type: 'vxlan' | 'host-gw';
  readonly vni: number;
  /** UDP port. */
  readonly port: number;
  /** MTU of the hosts' network, where it is not that of the interface. */
  readonly mtu: number | undefined;
  readonly gbp: boolean;
  readonly learning: boolean;
  /** Whether packets to nodes on the same link are sent without VXLAN. */
  readonly directRouting: boolean;
}

/** The network. */
export interface NetworkConfig {
  readonly ranges: { readonly 4: Range; readonly 6: Range | undefined };
  readonly backend: Backend;
}

const backends = ['vxlan', 'host-gw'] as const;
const prefix = convert(string(), Prefix.parse);
const address = convert(string(), Address.parse);

const shape = object({
  EnableIPv4: withDefault(boolean(), true),
  EnableIPv6: withDefault(boolean(), false),
  Network: prefix,
  SubnetLen: integer({ max: 30 }),
  SubnetMin: address,
  SubnetMax: address,
  IPv6Network: prefix,
  IPv6SubnetLen: integer({ max: 126 }),
  IPv6SubnetMin: address,
  IPv6SubnetMax: address,
  Backend: object({
    Type: withDefault(string(), ''),
    VNI: withDefault(integer({ min: 1, max: 0xffffff }), 1),
    Port: withDefault(integer({ max: 65_535 }), 0),
    MTU: integer({ min: 576, max: 65_535 }),
    GBP: withDefault(boolean(), false),
    Learning: withDefault(boolean(), false),
    DirectRouting: withDefault(boolean(), false),
  }),
});

/** The kernel's default UDP port for VXLAN, which is not the one that IANA assigned. */
const kernelPort = 8472;

/** Reads the network. @throws Error when it is invalid, or not supported here. */
export function parseNetworkConfig(text: string): NetworkConfig {
  const config = decode(shape, parseJson(text));
  const { Backend: backend } = config;
  const type = backends.find((one) => one === backend?.Type);
  if (!backend || !type)
    throw new Error(
      // "udp" is flannel's default, which few use.
      `Backend "${backend?.Type ?? 'udp'}" is not supported. Set "Backend" to {"Type": "vxlan"} or {"Type": "host-gw"}, or run flanneld on this node`,
    );
  if (!config.EnableIPv4)
    throw new Error('A network without IPv4 cannot be kept in etcd. Set "EnableIPv4" to true');
  return {
    ranges: {
      4: rangeOf(4, config.Network, config.SubnetLen, config.SubnetMin, config.SubnetMax),
      6: config.EnableIPv6
        ? rangeOf(6, config.IPv6Network, config.IPv6SubnetLen, config.IPv6SubnetMin, config.IPv6SubnetMax)
        : undefined,
    },
    backend: {
      type,
      vni: backend.VNI,
      port: backend.Port || kernelPort,
      mtu: backend.MTU,
      gbp: backend.GBP,
      learning: backend.Learning,
      directRouting: backend.DirectRouting,
    },
  };
}

/** Prefix lengths by family: the default of a node's subnet, and the longest of a network. */
const lengths = { 4: { usual: 24, most: 28 }, 6: { usual: 64, most: 124 } } as const;

function rangeOf(
  family: Family,
  network: Prefix | undefined,
  givenLength: number | undefined,
  min: Address | undefined,
  max: Address | undefined,
): Range {
  const key = family === 4 ? '' : 'IPv6';
  if (network?.family !== family) throw new Error(`"${key}Network" must be an IPv${family} network`);
  const { usual, most } = lengths[family];
  if (network.length > most)
    throw new Error(`"${key}Network" is ${network}, too small to be shared: it may be a /${most} at most`);
  const length = givenLength || Math.max(usual, network.length + 2);
  if (length < network.length + 2)
    throw new Error(
      `"${key}SubnetLen" is ${length}, but ${network} must have room for four subnets. Set it to ${network.length + 2} or more`,
    );
  const size = 1n << BigInt((family === 4 ? 32 : 128) - length);
  // The first subnet is left out, as its first address is that of the network.
  const first = min ?? network.first.plus(size);
  const last = max ?? new Prefix(network.last, length).first;
  for (const [name, end] of [
    ['Min', first],
    ['Max', last],
  ] as const)
    if (!network.contains(end) || !new Prefix(end, length).first.equals(end))
      throw new Error(`"${key}Subnet${name}" is ${end}, which does not begin a /${length} of ${network}`);
  return { network: network.network, length, first, last };
}
