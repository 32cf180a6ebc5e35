/** How an address of an IPPool is allocated. */

import type { Address } from '../../../lib/ip.ts';
import { alreadyReserved, nothingFree, otherAddresses, type Setting } from '../backend.ts';
import { capacityOf, formatPool, nextOf, type Pool, poolHas } from '../pools.ts';
import type { Allocation, Entry, IpPool } from './ip-pool.ts';
import type { IpPools, PoolRef } from './ip-pools.ts';
import type { Objects } from './objects.ts';
import type { Range } from './ranges.ts';
import { removeFrom } from './release.ts';
import { Tries } from './tries.ts';

/** A range, and the only address of it that will do; undefined for any. */
export interface Wish extends Range {
  readonly wanted: Address | undefined;
}

/** An address in a pool. */
export interface Entered {
  readonly ref: PoolRef;
  readonly address: Address;
}

/**
 * Gives an attachment an address: the one that it or its pod has already, even in quarantine, or a free one.
 * The address is entered in the pool, which only one can do at a time; and then reserved among all ranges.
 * @param own what to enter at the address.
 * @param entered gets what may be entered, even if it fails.
 * @throws Error when there is none; CniError TryAgainLater when the API cannot be asked.
 */
export async function allocateFrom(
  objects: Objects,
  { ipam, owner }: Setting,
  { pool: range, ref, network, wanted }: Wish,
  own: Allocation,
  entered: Map<string, Entered>,
): Promise<{ address: Address; isNew: boolean }> {
  using _ = await objects.pools.lock(ref.name);
  const { pools, reservations } = objects;
  /** Addresses that overlapping ranges have. */
  const elsewhere = new Set<bigint>();
  const overlaps = () =>
    elsewhere.size > 0
      ? `${elsewhere.size === 1 ? 'An address that was' : `${elsewhere.size} addresses that were`} free in ${formatPool(range)} of network "${owner.network}" are taken by ranges that overlap it. Give the ranges addresses of their own, or the networks another "network_name" each if they are apart`
      : undefined;
  const lapsedAt = lapsedIn(pools, own);
  for (const tries = new Tries(`IPPool "${ref.name}"`); ; tries.check(overlaps())) {
    const pool = await pools.read(ref.name, range.subnet);
    if (!pool) {
      if (!(await pools.create(ref.name, network))) await tries.next();
      continue;
    }
    const usable = pool.usableOf(range);
    const fits = ({ address }: Entry) =>
      (wanted ? address.equals(wanted) : poolHas(usable, address)) && !elsewhere.has(address.value);
    if (wanted && !poolHas(usable, wanted))
      throw new Error(
        `IPPool "${ref.name}" counts from ${usable.start}, so that it has no place for the requested address ${wanted}. Ask for another one, or correct "range" of the object`,
      );
    // Another range of the network may be in the same pool.
    const entries = pool.entries.filter(({ address }) => poolHas(range, address));
    const before = ownEntry(entries, own, fits);
    if (before?.id === own.id && before.until === undefined && !fits(before))
      throw otherAddresses(owner, [before.address]);
    const isNew = before?.id !== own.id || before.until !== undefined;
    const address = before?.address ?? choose(pool, usable, wanted, elsewhere);
    if (!address) throw wanted ? alreadyReserved(wanted) : nothingFree(formatPool(range), owner);
    const former = pool.at(address);
    if (isNew) {
      entered.set(`${address}`, { ref, address });
      if (!(await pools.change(pool, [{ address, allocation: own }]))) {
        await tries.next();
        continue;
      }
    }
    if (
      ipam.enable_overlapping_ranges === false ||
      (await reservations.reserve(ref.networkName, address, own, former, lapsedAt))
    )
      return { address, isNew: isNew || entered.has(`${address}`) };
    await removeFrom(objects, ref, own, address);
    entered.delete(`${address}`);
    elsewhere.add(address.value);
  }
}

/**
 * Finds whose quarantine of an address is over, in all pools. These are listed at the first question, and
 * again only for an address that was found: so the answer is newer than the reservation that was read.
 */
function lapsedIn(pools: IpPools, own: Allocation): (address: Address) => Promise<readonly Allocation[]> {
  let known: ReadonlyMap<string, readonly Allocation[]> | undefined;
  return async (address) => {
    if (known && !known.has(`${address}`)) return [];
    known = await pools.lapsedBut(own, Date.now() / 1000);
    return known.get(`${address}`) ?? [];
  };
}

/**
 * The attachment's entry, or else its pod's, from another container or in quarantine, if that fits: see "same
 * podref" in whereabouts. One that does not fit stays as it is: the other container may still be alive.
 */
function ownEntry(
  entries: readonly Entry[],
  own: Allocation,
  fits: (entry: Entry) => boolean,
): Entry | undefined {
  const isOwn = ({ id, ifname }: Entry) => id === own.id && (ifname ?? own.ifname) === own.ifname;
  return (
    entries.find((entry) => isOwn(entry) && entry.until === undefined) ??
    entries.find(
      (entry) =>
        (isOwn(entry) || (entry.podref === own.podref && entry.ifname === own.ifname)) && fits(entry),
    )
  );
}

/** A free address, searched for from a random place on; undefined when there is none. */
function choose(
  pool: IpPool,
  range: Pool,
  wanted: Address | undefined,
  elsewhere: ReadonlySet<bigint>,
): Address | undefined {
  const taken = pool.takenAt(Date.now() / 1000);
  const isFree = ({ value }: Address) => !taken.has(value) && !elsewhere.has(value);
  if (wanted) return isFree(wanted) ? wanted : undefined;
  const size = range.end.value - range.start.value + 1n;
  let next = nextOf(range, range.start.value + ((BigInt(Math.floor(Math.random() * 2 ** 48)) * size) >> 48n));
  const most = BigInt(taken.size + elsewhere.size) + 1n;
  const capacity = capacityOf(range);
  for (let seen = 0n; seen < most && seen < capacity; seen++) {
    if (isFree(next)) return next;
    next = nextOf(range, next.value + 1n);
  }
  return undefined;
}
