/** How addresses of an IPPool are given back. */

import type { Address } from '../../../lib/ip.ts';
import type { Owner } from '../keys.ts';
import type { Allocation, Change, Entry, IpPool } from './ip-pool.ts';
import type { PoolRef } from './ip-pools.ts';
import type { Objects } from './objects.ts';
import { Tries } from './tries.ts';

/**
 * How many addresses whose quarantine is over a release takes along, each for two more requests: all that
 * wait stand in one annotation, which must not grow.
 */
const mostAlong = 20;
/** How many of them GC gives back at a time: meanwhile no other call of the node can use the pool. */
const mostAtOnce = 50;

/** What is done with addresses of a pool in one step. */
interface Step {
  readonly free: readonly Entry[];
  /** Those that go into quarantine. */
  readonly waits: readonly Change[];
}

/**
 * Gives back what an attachment has of a pool, also when it was done before.
 * @param quarantine for which it goes to no other pod, in seconds.
 * @param warn is told when the pool has no room to note that.
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
  using _ = await objects.pools.lock(ref.name);
  await giveBack(objects, ref, (pool) => {
    const own = pool.entries
      .filter((entry) => entry.id === containerId && (entry.ifname ?? ifname) === ifname)
      .filter((entry) => until === undefined || entry.until === undefined);
    if (own.length === 0) return { free: [], waits: [] };
    const over = pool.expiredAt(Date.now() / 1000, mostAlong).filter((entry) => !own.includes(entry));
    const free = [...own, ...over];
    if (until === undefined) return { free, waits: [] };
    const waits = own.map(({ address, id, podref, ifname }) => ({
      address,
      allocation: { id, podref, ifname },
      until,
    }));
    const hasRoom = pool.hasRoomFor([...over.map(removal), ...waits]);
    crowdedOut = hasRoom ? [] : own;
    return hasRoom ? { free: over, waits } : { free, waits: [] };
  });
  if (crowdedOut.length > 0)
    warn(
      `IPPool "${ref.name}" has no room for another quarantine, so that ${crowdedOut.map(({ address }) => address).join(' and ')} can go to any pod at once. Set a shorter "quarantine", or smaller ranges`,
    );
}

/** Takes an allocation out of a pool that could not be completed. */
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
    freed = await giveBack(objects, ref, (pool) => ({
      free: pool.expiredAt(Date.now() / 1000, mostAtOnce),
      waits: [],
    }));
  }
}

/**
 * Does a step, chosen anew whenever others have changed the pool. The reservation goes first, as nothing
 * would lead to it once the pool has no entry.
 * @returns how many addresses were given back.
 */
async function giveBack(
  { pools, reservations }: Objects,
  { name, networkName }: PoolRef,
  choose: (pool: IpPool) => Step,
): Promise<number> {
  for (const tries = new Tries(`IPPool "${name}"`); ; await tries.next()) {
    const pool = await pools.read(name);
    const { free, waits } = pool ? choose(pool) : { free: [], waits: [] };
    if (!pool || free.length + waits.length === 0) return 0;
    for (const entry of free) {
      const isStillOwn = async () => (await pools.read(name))?.at(entry.address)?.id === entry.id;
      await reservations.release(networkName, entry.address, entry, isStillOwn);
    }
    if (await pools.change(pool, [...free.map(removal), ...waits])) return free.length;
  }
}

const removal = ({ address }: Entry): Change => ({ address, allocation: undefined });
