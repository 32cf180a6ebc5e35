/** Ranges of addresses, as the configuration gives them and as the allocator walks them. */

import { addressSchema, prefixSchema } from '../../lib/cni/result.ts';
import { array, type Infer, object } from '../../lib/cni/schema.ts';
import { Address, type Family, type Prefix } from '../../lib/ip.ts';

export const rangeShape = {
  subnet: prefixSchema,
  rangeStart: addressSchema,
  rangeEnd: addressSchema,
  gateway: addressSchema,
};

/** A list of range sets: each set gives every container one address. */
export const rangeSetsSchema = array(array(object(rangeShape)), {
  description:
    'Range sets. Every container gets one address from each set; the ranges of a set are one pool.',
});

type RangeConfig = Infer<typeof rangeSetsSchema>[number][number];

/** A contiguous range with everything filled in. */
export interface Range {
  subnet: Prefix;
  start: Address;
  end: Address;
  gateway: Address;
}

/** Ranges of one family that do not overlap: one pool. */
export type RangeSet = Range[];

/**
 * Fills in what the configuration leaves out, and checks the rest.
 * @throws Error that says what is wrong with which range.
 */
export function resolveRangeSets(sets: readonly (readonly RangeConfig[])[]): RangeSet[] {
  const resolved = sets.map((set, i) => {
    if (set.length === 0) throw new Error(`"ipam.ranges[${i}]" is empty. Give it a range with a "subnet"`);
    const ranges = set.map((range, j) => resolveRange(range, `"ipam.ranges[${i}][${j}]"`));
    for (const [j, range] of ranges.entries()) {
      if (range.start.family !== ranges[0]!.start.family)
        throw new Error(
          `"ipam.ranges[${i}]" mixes IPv4 and IPv6. Put them into two sets, [[{IPv4}], [{IPv6}]], to give every container one address of each`,
        );
      const other = ranges.slice(0, j).find((earlier) => overlap(earlier, range));
      if (other) throw new Error(`Ranges ${format(other)} and ${format(range)} overlap. Make them disjoint`);
    }
    if (capacity(ranges) === 0n)
      throw new Error(
        `"ipam.ranges[${i}]" has no address but that of a gateway (${ranges.map(({ gateway }) => gateway).join(', ')}), and gateways are never given away. Make it larger, or set another "gateway"`,
      );
    return ranges;
  });
  for (const [i, set] of resolved.entries())
    for (const earlier of resolved.slice(0, i))
      for (const a of earlier)
        for (const b of set)
          if (overlap(a, b))
            throw new Error(
              `Ranges ${format(a)} and ${format(b)} of two range sets overlap. Make them disjoint, or put them into one set`,
            );
  return resolved;
}

/** True when the address may be given away from the set, or is a gateway within it. */
export function setContains(set: RangeSet, address: Address): boolean {
  return set.some((range) => contains(range, address));
}

/** The range of a set that an address lies in. */
export function rangeOf(set: RangeSet, address: Address): Range | undefined {
  return set.find((range) => contains(range, address));
}

/** True when the address is the gateway of a range of the set, which is never given away. */
export function isGateway(set: RangeSet, address: Address): boolean {
  return set.some(({ gateway }) => gateway.equals(address));
}

/** How many addresses a set can give away. */
export function capacity(set: RangeSet): bigint {
  return set.reduce((sum, range) => {
    const size = range.end.value - range.start.value + 1n;
    return sum + (contains(range, range.gateway) ? size - 1n : size);
  }, 0n);
}

/** "10.1.0.1-10.1.0.254,10.2.0.1-10.2.0.254" */
export function formatSet(set: RangeSet): string {
  return set.map(format).join(',');
}

/**
 * Every address of a set that may be given away, once, beginning after `after`, or at the first one if
 * `after` is missing or outside the set.
 */
export function* candidates(
  set: RangeSet,
  after: Address | undefined,
): Generator<{ address: Address; range: Range }> {
  const startIndex = after ? set.findIndex((range) => contains(range, after)) : -1;
  const from = startIndex < 0 ? undefined : after;
  const first = Math.max(startIndex, 0);
  // The first range comes twice: from the cursor to its end, and finally from its start to the cursor.
  for (let step = 0; step <= set.length; step++) {
    const range = set[(first + step) % set.length]!;
    const low = step === 0 && from ? from.value + 1n : range.start.value;
    const high = step === set.length ? (from ? from.value : low - 1n) : range.end.value;
    for (let value = low; value <= high; value++)
      if (value !== range.gateway.value) yield { address: new Address(range.start.family, value), range };
  }
}

function resolveRange(config: RangeConfig, where: string): Range {
  const { subnet } = config;
  if (!subnet) throw new Error(`${where} has no "subnet". Give it one, such as "10.1.0.0/16"`);
  const family: Family = subnet.family;
  const bits = family === 4 ? 32 : 128;
  if (!subnet.address.equals(subnet.first))
    throw new Error(
      `"subnet" of ${where} is "${subnet}", which has host bits. Write it as "${subnet.network}"`,
    );
  if (subnet.length > bits - 2)
    throw new Error(
      `"subnet" of ${where} is "${subnet}", which is too small. Make it /${bits - 2} or larger`,
    );
  const gateway = config.gateway ?? subnet.first.plus(1);
  if (gateway.family !== family)
    throw new Error(
      `"gateway" of ${where} is "${gateway}", which is not of the family of "${subnet}". Give it one of IPv${family}`,
    );
  const start = config.rangeStart ?? subnet.first.plus(1);
  const end = config.rangeEnd ?? (family === 4 ? subnet.last.plus(-1) : subnet.last);
  for (const [key, address] of [
    ['rangeStart', start],
    ['rangeEnd', end],
  ] as const)
    if (!subnet.contains(address))
      throw new Error(
        `"${key}" of ${where} is "${address}", which is not in "${subnet}". Give it one from ${subnet.first} to ${subnet.last}`,
      );
  if (start.compare(end) > 0)
    throw new Error(`"rangeStart" of ${where}, "${start}", lies behind its "rangeEnd", "${end}". Swap them`);
  return { subnet, start, end, gateway };
}

function contains({ start, end }: Range, address: Address): boolean {
  return address.family === start.family && address.value >= start.value && address.value <= end.value;
}

function overlap(a: Range, b: Range): boolean {
  return a.start.family === b.start.family && a.start.value <= b.end.value && b.start.value <= a.end.value;
}

function format({ start, end }: Range): string {
  return `${start}-${end}`;
}
