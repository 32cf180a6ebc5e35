/** The ranges of whereabouts, with everything filled in. */

import { Address, Prefix } from '../../lib/ip.ts';
import { decimal, type Ipam } from './config.ts';

/** Consecutive addresses of which every container gets one. */
export interface Pool {
  readonly subnet: Prefix;
  readonly start: Address;
  readonly end: Address;
  /** Addresses within it that are not given away, in ascending order and without overlaps. */
  readonly gaps: readonly { readonly first: bigint; readonly last: bigint }[];
  readonly gateway: Address | undefined;
}

/**
 * The pools in the order in which containers get their addresses. What whereabouts ignores is ignored: see
 * {@link ignoredBounds}.
 * @throws Error that says what is wrong.
 */
export function resolvePools(ipam: Ipam): Pool[] {
  const pools = rangesOf(ipam).map(({ range, where }) => resolvePool(range, ipam.gateway, where));
  for (const [i, pool] of pools.entries())
    for (const other of pools.slice(0, i))
      if (overlap(pool, other))
        throw new Error(
          `Ranges ${formatPool(other)} and ${formatPool(pool)} overlap, but a container gets an address of each. Make them disjoint`,
        );
  checkSlices(ipam, pools);
  return pools;
}

/** The subnets of the ranges, as far as they can be read: what was attached can be released by them. */
export function subnetsOf(ipam: Ipam): Prefix[] {
  return rangesOf(ipam).flatMap(({ range }) => readRange(range.range)?.subnet ?? []);
}

/** Messages about bounds that have no effect, a sentence for each. @throws as {@link resolvePools}. */
export function ignoredBounds(ipam: Ipam): string[] {
  return rangesOf(ipam).flatMap(({ range, where }) => {
    const { bounds } = resolveBounds(range, where);
    return bounds.flatMap(({ key, text, ignored }) =>
      ignored
        ? `"${key}" of "${where}" has "${text}", which has no effect: it ${ignored}. Correct it, or take it out`
        : [],
    );
  });
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
      `Range ${formatPool(pool)} gives away no address from ${first} to ${last}. Make it larger, or have "exclude" and "gateway" leave some`,
    );
  return narrowed;
}

/** The first address from a given one on that a pool gives away, beginning again after its last one. */
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

/** The ranges of a configuration, and where they stand in it. */
function rangesOf(ipam: Ipam): { range: RangeConfig; where: string }[] {
  return [
    ...(ipam.range ? [{ range: ipam, where: 'ipam' }] : []),
    ...(ipam.ipRanges ?? []).map((range, i) => ({ range, where: `ipam.ipRanges[${i}]` })),
  ];
}

/** Reads "range"; undefined when it cannot be read. */
function readRange(text = ''): { subnet: Prefix; bounds?: { start: string; end: string } } | undefined {
  const [, from, network = text] = /^([^-/]+)-(.+)$/.exec(text) ?? [];
  const given = Prefix.tryParse(decimal(network.trim()));
  if (!given) return undefined;
  const subnet = given.network;
  if (from === undefined) return { subnet };
  const start = Address.tryParse(decimal(from.trim()));
  return start && subnet.contains(start)
    ? { subnet, bounds: { start: `${start}`, end: `${given.address}` } }
    : undefined;
}

/** An end of a range, as it is configured. */
interface Bound {
  readonly key: string;
  readonly text: string;
  /** Why it has no effect; undefined when it has one. */
  readonly ignored: string | undefined;
}

/**
 * The first and last address of a range. Each bound counts only if it is an address that the range can have,
 * and the last one only if it is not before the first one, as in whereabouts.
 */
function resolveBounds(
  { range, range_start, range_end }: RangeConfig,
  where: string,
): { subnet: Prefix; isWide: boolean; start: Address; end: Address; bounds: Bound[] } {
  const read = readRange(range);
  if (!read)
    throw new Error(
      `"range" of "${where}" is ${JSON.stringify(range ?? '')}. Write it like "10.1.0.0/16" or "10.1.0.10-10.1.0.90/16"`,
    );
  const { subnet } = read;
  const isWide = subnet.last.value - subnet.first.value > 1n;
  const lowest = isWide ? subnet.first.plus(1) : subnet.first;
  const highest = isWide && subnet.family === 4 ? subnet.last.plus(-1) : subnet.last;
  const bounds: Bound[] = [];
  const bound = (key: string, text: string | undefined, from: Address, otherwise: Address): Address => {
    if (!text) return otherwise;
    const address = Address.tryParse(decimal(text));
    const isFit =
      address?.family === from.family && address.compare(from) >= 0 && address.compare(highest) <= 0;
    const ignored = address ? `is not from ${from} to ${highest}` : 'is not an IP address';
    bounds.push({ key, text, ignored: isFit ? undefined : ignored });
    return isFit ? address : otherwise;
  };
  const [startKey, endKey] = read.bounds ? ['range', 'range'] : ['range_start', 'range_end'];
  const start = bound(startKey, read.bounds?.start ?? range_start, lowest, lowest);
  const end = bound(endKey, read.bounds?.end ?? range_end, start, highest);
  return { subnet, isWide, start, end, bounds };
}

function resolvePool(config: RangeConfig, gateway: Address | undefined, where: string): Pool {
  const { subnet, isWide, start, end } = resolveBounds(config, where);
  const { exclude = [] } = config;
  const own = gateway?.family === subnet.family ? gateway : undefined;
  const outside = isWide && subnet.family === 4 ? [subnet.first, subnet.last] : [];
  const single = [...outside, ...(own ? [own] : [])].map((one) => one.toPrefix());
  const gaps = mergeGaps([...exclude.map((text) => parseExcluded(text, where)), ...single], start, end);
  const pool = { subnet, start, end, gaps, gateway: own };
  if (capacityOf(pool) <= 0n)
    throw new Error(
      `"${where}" has no address to give away from ${start} to ${end}: ${[
        ...(exclude.length > 0 ? ['"exclude" takes some out'] : []),
        ...(own ? [`gateway ${own} is never given away`] : []),
      ].join(', and ')}. Make the range larger, or change what takes addresses out`,
    );
  return pool;
}

/** @throws Error for slices that are impossible. */
function checkSlices({ node_slice_size, etcd_host }: Ipam, pools: readonly Pool[]): void {
  if (!node_slice_size) return;
  if (etcd_host)
    throw new Error(
      '"node_slice_size" gives each node a part of the range, which etcd does not need: nodes do not wait for one another. Take it out',
    );
  if (pools.length !== 1 || pools[0]!.subnet.family !== 4)
    throw new Error(
      '"node_slice_size" goes with one range, of IPv4. Take it out, or take the other ranges out',
    );
}

function parseExcluded(text: string, where: string): Prefix {
  const prefix = Prefix.tryParse(text) ?? Address.tryParse(text)?.toPrefix();
  if (prefix) return prefix.network;
  throw new Error(
    `"exclude" of "${where}" has ${JSON.stringify(text)}. Write addresses and networks, such as "10.1.0.7" or "10.1.0.0/29"`,
  );
}

/** The parts of networks that lie between two addresses, merged where they touch. */
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
