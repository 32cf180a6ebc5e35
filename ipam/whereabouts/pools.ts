/** The ranges of whereabouts, with everything filled in. */

import { Address, Prefix } from '../../lib/ip.ts';
import type { Ipam } from './config.ts';

/** Consecutive addresses of which every container gets one. */
export interface Pool {
  readonly subnet: Prefix;
  readonly start: Address;
  readonly end: Address;
  /** Addresses within that are not given away. In the order of their first ones, and without overlaps. */
  readonly gaps: readonly { readonly first: bigint; readonly last: bigint }[];
  readonly gateway: Address | undefined;
}

/** The pools in the order in which containers get their addresses. @throws Error that says what is wrong. */
export function resolvePools({
  range,
  range_start,
  range_end,
  exclude,
  ipRanges = [],
  gateway,
}: Ipam): Pool[] {
  const first = { ...(range !== undefined && { range }), range_start, range_end, exclude };
  const pools = [
    ...(range === undefined ? [] : [resolvePool(first, gateway, 'ipam')]),
    ...ipRanges.map((one, i) => resolvePool(one, gateway, `ipam.ipRanges[${i}]`)),
  ];
  for (const [i, pool] of pools.entries())
    for (const other of pools.slice(0, i))
      if (overlap(pool, other))
        throw new Error(
          `Ranges ${formatPool(other)} and ${formatPool(pool)} overlap, but a container gets an address of each. Make them disjoint`,
        );
  return pools;
}

/** True when an address may be given away from the pool. */
export function poolHas({ start, end, gaps }: Pool, { family, value }: Address): boolean {
  return (
    family === start.family &&
    value >= start.value &&
    value <= end.value &&
    !gaps.some(({ first, last }) => value >= first && value <= last)
  );
}

/** How many addresses a pool can give away. */
export function capacityOf({ start, end, gaps }: Pool): bigint {
  return gaps.reduce((sum, { first, last }) => sum - (last - first + 1n), end.value - start.value + 1n);
}

/** The parts of a pool between its gaps, in their order: all that it can give away. */
export function partsOf({ start, end, gaps }: Pool): { first: Address; last: Address }[] {
  const at = (value: bigint) => new Address(start.family, value);
  const firsts = [start.value, ...gaps.map(({ last }) => last + 1n)];
  const lasts = [...gaps.map(({ first }) => first - 1n), end.value];
  return firsts.flatMap((first, i) =>
    first <= lasts[i]! ? [{ first: at(first), last: at(lasts[i]!) }] : [],
  );
}

/** The part of a pool from one address to another. @throws Error when it has none there. */
export function narrowPool(pool: Pool, first: Address, last: Address): Pool {
  const start = higher(pool.start, first);
  const end = lower(pool.end, last);
  const at = (value: bigint) => new Address(start.family, value);
  const gaps = pool.gaps
    .map((gap) => ({
      first: higher(at(gap.first), start).value,
      last: lower(at(gap.last), end).value,
    }))
    .filter((gap) => gap.first <= gap.last);
  const narrowed = { ...pool, start, end, gaps };
  if (start.compare(end) > 0 || capacityOf(narrowed) <= 0n)
    throw new Error(
      `Range ${formatPool(pool)} gives away no address from ${first} to ${last}. Make it larger, or take some out of "exclude"`,
    );
  return narrowed;
}

/** The first address from one on that a pool gives away, from its start again behind its last one. */
export function nextOf(pool: Pool, from: bigint): Address {
  const parts = partsOf(pool);
  const part = parts.find(({ last }) => last.value >= from);
  return part && part.first.value <= from ? new Address(pool.start.family, from) : (part ?? parts[0]!).first;
}

/** "10.1.0.1-10.1.0.254" */
export function formatPool({ start, end }: Pool): string {
  return `${start}-${end}`;
}

type RangeConfig = Pick<Ipam, 'range' | 'range_start' | 'range_end' | 'exclude'>;

function resolvePool(
  {
    range = '',
    range_start,
    range_end,
    exclude = [],
  }: { [K in keyof RangeConfig]: RangeConfig[K] | undefined },
  gateway: Address | undefined,
  where: string,
): Pool {
  const [, from, network = range] = /^([^-/]+)-(.+)$/.exec(range) ?? [];
  const given = Prefix.tryParse(network.trim());
  const written = from === undefined ? undefined : Address.tryParse(from.trim());
  if (!given || (from !== undefined && !written))
    throw new Error(
      `"range" of "${where}" is ${JSON.stringify(range)}. Write it like "10.1.0.0/16" or "10.1.0.10-10.1.0.90/16"`,
    );
  const subnet = given.network;
  const isWide = subnet.last.value - subnet.first.value > 1n;
  const lowest = isWide ? subnet.first.plus(1) : subnet.first;
  const highest = isWide && subnet.family === 4 ? subnet.last.plus(-1) : subnet.last;
  const start = range_start ?? written ?? lowest;
  const end = range_end ?? (written ? given.address : highest);
  for (const [key, address] of [
    ['range_start', start],
    ['range_end', end],
  ] as const)
    if (!subnet.contains(address))
      throw new Error(
        `"${key}" of "${where}" is "${address}", which is not in "${subnet}". Give it one from ${subnet.first} to ${subnet.last}`,
      );
  if (start.compare(end) > 0)
    throw new Error(`The range of "${where}" begins at "${start}", behind its end, "${end}". Swap them`);
  const own = gateway?.family === subnet.family ? gateway : undefined;
  const outside = isWide && subnet.family === 4 ? [subnet.first, subnet.last] : [];
  const single = [...outside, ...(own ? [own] : [])].map((one) => one.toPrefix());
  const gaps = mergeGaps([...exclude.map((text) => parseExcluded(text, where)), ...single], start, end);
  const pool = { subnet, start, end, gaps, gateway: own };
  if (capacityOf(pool) <= 0n)
    throw new Error(`"exclude" of "${where}" leaves no address of ${formatPool(pool)}. Take some out of it`);
  return pool;
}

function parseExcluded(text: string, where: string): Prefix {
  const prefix = Prefix.tryParse(text) ?? Address.tryParse(text)?.toPrefix();
  if (prefix) return prefix.network;
  throw new Error(
    `"exclude" of "${where}" has ${JSON.stringify(text)}. Write addresses and networks, such as "10.1.0.7" or "10.1.0.0/29"`,
  );
}

/** What of some networks lies between two addresses, put together where it touches. */
function mergeGaps(networks: readonly Prefix[], start: Address, end: Address): Pool['gaps'] {
  const clamped = networks
    .filter(({ family }) => family === start.family)
    .map(({ first, last }) => ({ first: higher(first, start).value, last: lower(last, end).value }))
    .filter(({ first, last }) => first <= last)
    .sort((a, b) => (a.first < b.first ? -1 : 1));
  const merged: { first: bigint; last: bigint }[] = [];
  for (const gap of clamped) {
    const before = merged.at(-1);
    if (!before || gap.first > before.last + 1n) merged.push(gap);
    else if (gap.last > before.last) before.last = gap.last;
  }
  return merged;
}

function overlap(a: Pool, b: Pool): boolean {
  return a.start.family === b.start.family && a.start.value <= b.end.value && b.start.value <= a.end.value;
}

const higher = (a: Address, b: Address): Address => (a.compare(b) > 0 ? a : b);
const lower = (a: Address, b: Address): Address => (a.compare(b) < 0 ? a : b);
