/** How addresses of an IPPool are given back. */

import type { Address } from '../../../lib/ip.ts';
import type { Owner } from '../keys.ts';
import type { Allocation, Change, Entry, IpPool } from './ip-pool.ts';
import type { PoolRef } from './ip-pools.ts';
import type { Objects } from './objects.ts';
import { Tries } from './tries.ts';

/**
 * How many addresses whose quarantine is over a release gives back along with its own, at two more requests
 * each: all quarantines are in one annotation, which must not grow without bound.
 */
const mostAlong = 5;
/** How many of them GC gives back at a time: meanwhile no other call of the node can use the pool. */
const mostAtOnce = 50;

/** What is done with addresses of a pool in one step. */
interface Step {
  readonly free: readonly Entry[];
  /** Those that go into quarantine. */
  readonly waits: readonly Change[];
}

const nothing: Step = { free: [], waits: [] };

/**
 * Gives back what an attachment has in a pool. It may be repeated.
 * @param quarantine for which it goes to no other pod, in seconds.
 * @param warn is told when the pool has no room to note that.
 * @throws CniError when the API cannot be asked, or others keep changing the pool.
 */
export async function releaseFrom(
  objects: Objects,
  ref: PoolRef,
  { containerId, ifname }: Owner,
  quarantine: number,
  warn: (message: string) => void,
): Promise<void> {
  const until = quarantine > 0 ? Math.ceil(Date.now() / 1000) + quarantine : undefined;
  let crowdedOut: readonly Entry[] = [];
  let hasExpired = false;
  const choose = (pool: IpPool): Step => {
    const own = pool.entries
      .filter((entry) => entry.id === containerId && (entry.ifname ?? ifname) === ifname)
      .filter((entry) => until === undefined || entry.until === undefined);
    const { free: over } = own.length > 0 ? expired(mostAlong)(pool) : nothing;
    hasExpired = over.length > 0;
    if (until === undefined) return { free: own, waits: [] };
    const waits = own.map(({ address, id, podref, ifname }) => ({
      address,
      allocation: { id, podref, ifname },
      until,
    }));
    // Only if need be: each request between reading and changing the pool gives others time to change it.
    const along = pool.hasRoomFor(waits) ? [] : over;
    const hasRoom = pool.hasRoomFor([...along.map(removal), ...waits]);
    crowdedOut = hasRoom ? [] : own;
    return hasRoom ? { free: along, waits } : { free: own, waits: [] };
  };
  {
    using _ = await objects.pools.lock(ref.name);
    await giveBack(objects, ref, choose);
  }
  if (crowdedOut.length > 0)
    warn(
      `IPPool "${ref.name}" has no room for another quarantine, so that ${crowdedOut.map(({ address }) => address).join(' and ')} can go to any pod at once. Set a shorter "quarantine", or smaller ranges`,
    );
  if (hasExpired)
    await tryGiveBack(objects, ref, expired(mostAlong)).catch(() => {
      // The next release does it, or GC.
    });
}

/** Removes from a pool an allocation that could not be completed. */
export async function removeFrom(
  objects: Objects,
  ref: PoolRef,
  { id }: Allocation,
  address: Address,
): Promise<void> {
  await giveBack(objects, ref, (pool) => {
    const entry = pool.at(address);
    return { free: entry?.id === id ? [entry] : [], waits: [] };
  });
}

/** Gives back addresses whose quarantine is over. */
export async function releaseExpired(objects: Objects, ref: PoolRef): Promise<void> {
  for (let freed = mostAtOnce; freed === mostAtOnce; ) {
    using _ = await objects.pools.lock(ref.name);
    freed = await giveBack(objects, ref, expired(mostAtOnce));
  }
}

/** Does a step, chosen anew whenever others have changed the pool. @returns how many were given back. */
async function giveBack(objects: Objects, ref: PoolRef, choose: (pool: IpPool) => Step): Promise<number> {
  for (const tries = new Tries(`IPPool "${ref.name}"`); ; await tries.next()) {
    const freed = await tryGiveBack(objects, ref, choose);
    if (freed !== undefined) return freed;
  }
}

/**
 * Does a step, unless others change the pool meanwhile. Reservations go first, as nothing would lead to them
 * once the pool has no entry.
 * @returns how many addresses were given back; undefined when others were faster.
 */
async function tryGiveBack(
  { pools, reservations }: Objects,
  { name, networkName }: PoolRef,
  choose: (pool: IpPool) => Step,
): Promise<number | undefined> {
  const pool = await pools.read(name);
  const { free, waits } = pool ? choose(pool) : nothing;
  if (!pool || free.length + waits.length === 0) return 0;
  for (const entry of free) {
    const isStillOwn = async () => (await pools.read(name))?.at(entry.address)?.id === entry.id;
    await reservations.release(networkName, entry.address, entry, isStillOwn);
  }
  return (await pools.change(pool, [...free.map(removal), ...waits])) ? free.length : undefined;
}

/** Gives back addresses whose quarantine is over. @param most how many. */
const expired =
  (most: number) =>
  (pool: IpPool): Step => ({ free: pool.expiredAt(Date.now() / 1000, most), waits: [] });

const removal = ({ address }: Entry): Change => ({ address, allocation: undefined });
