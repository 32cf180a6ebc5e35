/** The addresses that a network's configuration gives away. */

import { type IPv4, IPv4CidrRange, type IPv6, IPv6CidrRange, RangedSet } from 'ip-num';
import { type RangeSet, rangeSetsSchema, rangeShape, resolveRangeSets } from '../ipam/host-local/ranges.ts';
import { prefixSchema } from '../lib/cni/result.ts';
import { array, decode, isObject, object, string } from '../lib/cni/schema.ts';
import type { Prefix } from '../lib/ip.ts';

const hostLocalSchema = object({
  ipam: object({ ...rangeShape, ranges: rangeSetsSchema, dataDir: string() }),
});
const staticSchema = object({ ipam: object({ addresses: array(object({ address: prefixSchema })) }) });

/** Where host-local keeps its reservations unless "dataDir" says otherwise. */
export const defaultDataDir = '/var/lib/cni/networks';

/** The type of the IPAM plugin in a plugin's configuration, if there is one. */
export function ipamTypeOf(config: Readonly<Record<string, unknown>>): string | undefined {
  const { ipam } = config;
  return isObject(ipam) && typeof ipam.type === 'string' && ipam.type !== '' ? ipam.type : undefined;
}

/** Directory of host-local's reservations. @throws SchemaError */
export function dataDirOf(config: Readonly<Record<string, unknown>>): string {
  return decode(hostLocalSchema, config).ipam?.dataDir || defaultDataDir;
}

/**
 * host-local's range sets, in the order in which it takes one address of each.
 * @throws Error that says what is wrong with them.
 */
export function rangeSetsOf(config: Readonly<Record<string, unknown>>): RangeSet[] {
  const { ranges = [], ...flat } = decode(hostLocalSchema, config).ipam ?? {};
  return resolveRangeSets([...(flat.subnet ? [[flat]] : []), ...ranges]);
}

/** Consecutive addresses of one subnet. */
export interface Pool {
  readonly subnet: Prefix;
  /** First and last address, as "10.1.0.1-10.1.0.254". */
  readonly range: string;
}

/** What an IPAM plugin may give away, as far as its configuration tells. @throws Error when it is wrong. */
export function poolsOf(config: Readonly<Record<string, unknown>>): Pool[] {
  switch (ipamTypeOf(config)) {
    case 'host-local':
      return rangeSetsOf(config)
        .flat()
        .map(({ subnet, start, end }) => ({ subnet, range: `${start}-${end}` }));
    case 'static':
      return (decode(staticSchema, config).ipam?.addresses ?? []).flatMap(({ address }) =>
        address ? [{ subnet: address.network, range: `${address.address}-${address.address}` }] : [],
      );
    default:
      return [];
  }
}

/** True if two pools can give away the same address. */
export function poolsMeet(a: Pool, b: Pool): boolean {
  return a.subnet.family === b.subnet.family && meet(rangeOf(a), rangeOf(b));
}

/** True if two subnets have an address in common. */
export function subnetsMeet(a: Prefix, b: Prefix): boolean {
  return a.family === b.family && meet(cidrRange(a), cidrRange(b));
}

/** Number of addresses in a pool. */
export function sizeOf(pool: Pool): bigint {
  return rangeOf(pool).getSize();
}

type Addresses = RangedSet<IPv4> | RangedSet<IPv6> | IPv4CidrRange | IPv6CidrRange;

function rangeOf({ range }: Pool): Addresses {
  return RangedSet.fromRangeString(range);
}

function cidrRange(prefix: Prefix): Addresses {
  const text = prefix.network.toString();
  return prefix.family === 4 ? IPv4CidrRange.fromCidr(text) : IPv6CidrRange.fromCidr(text);
}

// ip-num's own isOverlapping() is false when one range lies within the other.
function meet(a: Addresses, b: Addresses): boolean {
  return (
    a.getFirst().getValue() <= b.getLast().getValue() && b.getFirst().getValue() <= a.getLast().getValue()
  );
}
