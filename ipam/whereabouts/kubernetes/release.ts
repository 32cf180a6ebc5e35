/** How addresses of an IPPool are given back. */

import type { Address } from '../../../lib/ip.ts';
import type { Owner } from '../keys.ts';
import type { Allocation, Change, Entry, IpPool } from './ip-pool.ts';
import type { PoolRef } from './ip-pools.ts';
import type { Objects } from './objects.ts';
import { Tries } from './tries.ts';

/**
 * Gives back what an attachment has of a pool, also when it was done before.
 * @param quarantine for which it goes to no other pod, in seconds.
 */
export async function releaseFrom(
  objects: Objects,
  ref: PoolRef,
  { containerId, ifname }: Owner,
  quarantine: number,
): Promise<void> {
  const until = quarantine > 0 ? Math.ceil(Date.now() / 1000) + quarantine : undefined;
  using _ = await objects.pools.lock(ref.name);
  await giveBack(objects, ref, until, (pool) =>
    pool.entries
      .filter((entry) => entry.id === containerId && (entry.ifname ?? ifname) === ifname)
      .filter((entry) => until === undefined || entry.until === undefined),
  );
}

/** Takes an allocation out of a pool that could not be completed. */
export async function removeFrom(
  objects: Objects,
  ref: PoolRef,
  { id }: Allocation,
  address: Address,
): Promise<void> {
  await giveBack(objects, ref, undefined, (pool) => {
    const entry = pool.at(address);
    return entry?.id === id ? [entry] : [];
  });
}

/** Gives back addresses whose quarantine is over. */
export async function releaseExpired(objects: Objects, ref: PoolRef): Promise<void> {
  using _ = await objects.pools.lock(ref.name);
  await giveBack(objects, ref, undefined, (pool) =>
    pool.entries.filter(({ until }) => until !== undefined && until <= Date.now() / 1000),
  );
}

/** The reservation goes first, as nothing would lead to it once the pool has no entry. */
async function giveBack(
  { pools, reservations }: Objects,
  { name, networkName }: PoolRef,
  until: number | undefined,
  choose: (pool: IpPool) => readonly Entry[],
): Promise<void> {
  for (const tries = new Tries(`IPPool "${name}"`); ; await tries.next()) {
    const pool = await pools.read(name);
    const entries = pool ? choose(pool) : [];
    if (!pool || entries.length === 0) return;
    if (until === undefined)
      for (const entry of entries) {
        const isStillOwn = async () => (await pools.read(name))?.at(entry.address)?.id === entry.id;
        await reservations.release(networkName, entry.address, entry, isStillOwn);
      }
    const changes = entries.map(
      ({ address, id, podref, ifname }): Change =>
        until === undefined
          ? { address, allocation: undefined }
          : { address, allocation: { id, podref, ifname }, until },
    );
    if (await pools.change(pool, changes)) return;
  }
}
