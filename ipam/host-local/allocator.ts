/** How host-local chooses an address of a range set. */

import type { AttachmentId } from '../../lib/attachment.ts';
import type { IPConfig } from '../../lib/cni/result.ts';
import { type Address, Prefix } from '../../lib/ip.ts';
import { candidates, formatSet, isGateway, type RangeSet, rangeOf, setContains } from './ranges.ts';
import type { Store } from './store.ts';

/** Attempts after which the directory is read once, instead of one attempt per address. */
const attemptsAtMost = 32;

/** Refuses an attachment that has an address of the set already. @throws Error */
export function refuseSecondAddress(store: Store, owner: AttachmentId, set: RangeSet): void {
  const own = store.addressesOf(owner).find((address) => setContains(set, address));
  if (own)
    throw new Error(
      `Container "${owner.containerId}" already has address ${own} for interface "${owner.ifname}", and gets no second one. ` +
        'Run DEL for it first, or GC if it no longer exists',
    );
}

/** Reserves a requested address. @throws Error when it is not available. */
export function reserveRequested(
  store: Store,
  owner: AttachmentId,
  set: RangeSet,
  index: number,
  address: Address,
): IPConfig {
  const range = rangeOf(set, address)!;
  if (address.equals(range.gateway))
    throw new Error(
      `The requested address ${address} is the gateway of ${range.subnet}. Ask for another one`,
    );
  if (!store.reserve(address, owner, index))
    throw new Error(
      `The requested address ${address} is reserved already. Ask for another one, or release it first`,
    );
  return configOf(set, address);
}

/** Reserves the next free address of a range set. @throws Error when there is none. */
export function reserveNext(store: Store, owner: AttachmentId, set: RangeSet, index: number): IPConfig {
  let taken: Set<bigint> | undefined;
  let tried = 0;
  for (const { address } of candidates(set, store.lastReserved(index))) {
    // After this many attempts, reading the directory once is cheaper than one attempt per address. It also
    // lists empty files, which reserve() would take over, so those are left until nothing else is free.
    if (++tried === attemptsAtMost) taken = new Set(store.reserved().map(({ value }) => value));
    if (!taken?.has(address.value) && store.reserve(address, owner, index)) return configOf(set, address);
  }
  const empty = store
    .list()
    .find(({ address, state }) => state === 'empty' && setContains(set, address) && !isGateway(set, address));
  if (empty && store.reserve(empty.address, owner, index)) return configOf(set, empty.address);
  throw new Error(`No address is free in ${formatSet(set)} of network "${owner.network}". ${waysOut}`);
}

/** What to do about a range that is used up. */
export const waysOut =
  'Delete containers, collect stale reservations with GC, or add a range to the configuration';

function configOf(set: RangeSet, address: Address): IPConfig {
  const { subnet, gateway } = rangeOf(set, address)!;
  return { address: new Prefix(address, subnet.length), gateway };
}
