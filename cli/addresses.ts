/** Compares the address pools of networks. */

import { type IPv4, IPv4CidrRange, type IPv6, IPv6CidrRange, RangedSet } from 'ip-num';
import type { AddressPool } from '../lib/cni/plugin.ts';

/** True if two pools can hand out the same address. */
export function poolsOverlap(a: AddressPool, b: AddressPool): boolean {
  return sameFamily(a, b) && overlap(rangeOf(a), rangeOf(b));
}

/** True if the subnets of two pools have an address in common. */
export function subnetsOverlap(a: AddressPool, b: AddressPool): boolean {
  return sameFamily(a, b) && overlap(subnetOf(a), subnetOf(b));
}

/** True for a pool of IPv4 addresses, false for IPv6. */
export function isIPv4(pool: AddressPool): boolean {
  return !pool.subnet.includes(':');
}

/** Number of addresses in a pool. */
export function sizeOf(pool: AddressPool): bigint {
  return rangeOf(pool).getSize();
}

type Addresses = RangedSet<IPv4> | RangedSet<IPv6> | IPv4CidrRange | IPv6CidrRange;

function rangeOf({ range }: AddressPool): Addresses {
  return RangedSet.fromRangeString(range);
}

function subnetOf(pool: AddressPool): Addresses {
  return isIPv4(pool) ? IPv4CidrRange.fromCidr(pool.subnet) : IPv6CidrRange.fromCidr(pool.subnet);
}

function sameFamily(a: AddressPool, b: AddressPool): boolean {
  return isIPv4(a) === isIPv4(b);
}

// ip-num's own isOverlapping() is false when one range lies within the other.
function overlap(a: Addresses, b: Addresses): boolean {
  return (
    a.getFirst().getValue() <= b.getLast().getValue() && b.getFirst().getValue() <= a.getLast().getValue()
  );
}
