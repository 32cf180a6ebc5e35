/**
 * How addresses are allocated: one reading of a part of each range, and one transaction that takes addresses
 * which nobody has. No lock is held, and nothing depends on how large a range is.
 */

import type { EtcdClient } from '../../lib/etcd/client.ts';
import {
  countOf,
  get,
  hasValue,
  isAbsent,
  type OperationResult,
  range,
  transact,
} from '../../lib/etcd/kv.ts';
import { Address } from '../../lib/ip.ts';
import {
  addressKey,
  addressOf,
  formatHolding,
  type Holding,
  identityKey,
  type Owner,
  ownerKey,
  type Place,
  parseHolding,
  waitingValue,
} from './keys.ts';
import { legacyKey, parseLegacy } from './legacy.ts';
import { type Choice, choices, offersOf, take } from './offers.ts';
import { capacityOf, formatPool, type Pool, poolHas } from './pools.ts';

/** How many keys of a range are read at once. */
const page = 256;
/** How often addresses are chosen anew when others were faster each time. */
const attempts = 30;

/** What is to be given an address from. */
export interface Source {
  readonly pool: Pool;
  readonly group: string;
  /** The one address that will do. */
  readonly wanted: Address | undefined;
}

/**
 * Gives an attachment an address of each source, or those that it has already.
 * @param identity whom addresses in quarantine go back to; "" for nobody.
 * @returns a place for each source; whether they are new.
 * @throws Error when there is none; EtcdUnavailableError, CniError as {@link transact}.
 */
export async function allocate(
  client: EtcdClient,
  owner: Owner,
  identity: string,
  sources: readonly Source[],
): Promise<{ places: Place[]; isNew: boolean }> {
  const cursors: Cursor[] = sources.map(() => anywhere);
  const proposed: string[] = [];
  for (let tries = 0; tries < attempts; tries++) {
    const view = await look(client, owner, identity, sources, cursors);
    const own = assign(view.holding, sources);
    // A member that answered too late has done it all the same.
    if (own && view.holding) return { places: own, isNew: proposed.includes(formatHolding(view.holding)) };
    if (view.holding) throw new Error(otherAddresses(owner, view.holding));
    const lists = sources.map((source, i) => choicesOf(source, view.parts[i]!, view.waiting, identity));
    let isComplete = true;
    for (const [i, source] of sources.entries()) {
      if (lists[i]!.length > 0) continue;
      cursors[i] = nextPart(source, view.parts[i]!, cursors[i]!, owner);
      isComplete = false;
    }
    if (!isComplete) {
      // Another part is no attempt: a range has only so many.
      tries--;
      continue;
    }
    const offers = offersOf(lists, identity);
    proposed.push(...offers.map(({ holding }) => formatHolding(holding)));
    const taken = await take(client, owner, offers, view.waiting);
    if (taken) return { places: [...taken.places], isNew: true };
    cursors.fill(anywhere);
  }
  throw new Error(
    `Others were faster ${attempts} times in taking an address of ${sources.map(({ pool }) => formatPool(pool)).join(' and ')}. Try again, or make the range larger`,
  );
}

/** Where a part of a range begins. */
interface Cursor {
  /** Undefined for anywhere. */
  readonly at: Address | undefined;
  /** Whether the end of the range has been seen, and what comes now is looked at from its start. */
  readonly hasWrapped: boolean;
}

const anywhere: Cursor = { at: undefined, hasWrapped: false };

/** A part of a range, as it was read. */
interface Part {
  /** First address of the part; the last one is that of the last key, or the end of the range. */
  readonly begin: Address;
  readonly end: Address;
  readonly taken: ReadonlySet<bigint>;
  /** How many addresses of the whole range are taken. */
  readonly count: bigint;
}

interface View {
  /** What the attachment has already. */
  readonly holding: Holding | undefined;
  /** Addresses that wait for it. */
  readonly waiting: Holding | undefined;
  readonly parts: readonly Part[];
}

async function look(
  client: EtcdClient,
  owner: Owner,
  identity: string,
  sources: readonly Source[],
  cursors: readonly Cursor[],
): Promise<View> {
  const begins = sources.map(({ pool, wanted }, i) => wanted ?? cursors[i]!.at ?? randomOf(pool));
  const { results } = await transact(client, {
    compare: [],
    success: [
      get(ownerKey(owner)),
      get(identityKey(identity)),
      ...sources.flatMap(({ pool, group }, i) => {
        const end = behind(group, pool.end);
        return [
          get(legacyKey(pool)),
          countOf(addressKey({ group, address: pool.start }), end),
          range(addressKey({ group, address: begins[i]! }), end, { limit: page, keysOnly: true }),
        ];
      }),
    ],
  });
  const [own, back] = results;
  return {
    holding: own?.kvs[0] && parseHolding(own.kvs[0].value),
    waiting: identity === '' || !back?.kvs[0] ? undefined : parseHolding(back.kvs[0].value),
    parts: sources.map(({ pool }, i) => partOf(pool, begins[i]!, results.slice(2 + 3 * i, 5 + 3 * i))),
  };
}

function partOf(pool: Pool, begin: Address, results: readonly OperationResult[]): Part {
  const [legacy, all, keys] = results;
  const listed = parseLegacy(legacy?.kvs[0]?.value).filter(({ address }) => poolHas(pool, address));
  const found = (keys?.kvs ?? []).flatMap(({ key }) => addressOf(key) ?? []);
  const isLast = (keys?.kvs.length ?? 0) < page;
  return {
    begin,
    end: isLast ? pool.end : found.at(-1)!,
    taken: new Set([...found, ...listed.map(({ address }) => address)].map(({ value }) => value)),
    count: BigInt((all?.count ?? 0) + listed.length),
  };
}

/** Up to so many free addresses of a part, in any order; one that waits for the pod comes first. */
function choicesOf(
  { pool, group, wanted }: Source,
  { begin, end, taken }: Part,
  waiting: Holding | undefined,
  identity: string,
): Choice[] {
  const back = (waiting?.places ?? [])
    .filter((place) => place.group === group && poolHas(pool, place.address))
    .map((place) => ({ ...place, condition: hasValue(addressKey(place), waitingValue(identity)) }));
  const chooseOne = (address: Address): Choice => ({
    ...{ group, address, condition: isAbsent(addressKey({ group, address })) },
  });
  if (wanted) {
    const own = back.find(({ address }) => address.equals(wanted));
    return own ? [own] : taken.has(wanted.value) ? [] : [chooseOne(wanted)];
  }
  const free = freeAddresses(pool, begin, end, taken);
  const chosen: Choice[] = back.slice(0, 1);
  while (chosen.length < choices && free.length > 0)
    chosen.push(chooseOne(free.splice(Math.floor(Math.random() * free.length), 1)[0]!));
  return chosen;
}

/** Some of the addresses of a part that nobody has. */
function freeAddresses(pool: Pool, begin: Address, end: Address, taken: ReadonlySet<bigint>): Address[] {
  const free: Address[] = [];
  for (let { value } = begin; value <= end.value && free.length < page; value++) {
    const gap = pool.gaps.find(({ first, last }) => value >= first && value <= last);
    if (gap) value = gap.last;
    else if (!taken.has(value)) free.push(new Address(pool.start.family, value));
  }
  return free;
}

/** Where to look on. @throws Error when all of the range is taken. */
function nextPart(
  { pool, wanted }: Source,
  { end, count }: Part,
  { hasWrapped }: Cursor,
  owner: Owner,
): Cursor {
  if (wanted)
    throw new Error(
      `The requested address ${wanted} is reserved already. Ask for another one, or release it first`,
    );
  const isAtEnd = end.value >= pool.end.value;
  if (count >= capacityOf(pool) || (isAtEnd && hasWrapped))
    throw new Error(
      `No address is free in ${formatPool(pool)} of network "${owner.network}". Delete containers, collect stale reservations with GC, or add a range to the configuration`,
    );
  return isAtEnd ? { at: pool.start, hasWrapped: true } : { at: end.plus(1), hasWrapped };
}

/** What an attachment has already, if that is an address of each source. */
function assign(holding: Holding | undefined, sources: readonly Source[]): Place[] | undefined {
  const places = sources.map(({ pool, group, wanted }) =>
    holding?.places.find(
      (place) =>
        place.group === group && (wanted ? place.address.equals(wanted) : poolHas(pool, place.address)),
    ),
  );
  return places.every((place) => place !== undefined) ? places : undefined;
}

function otherAddresses({ containerId, ifname }: Owner, { places }: Holding): string {
  return `Container "${containerId}" already has ${places.map(({ address }) => address).join(' and ') || 'a reservation'} for interface "${ifname}", and not what the configuration asks for. Run DEL for it first, or GC if it no longer exists`;
}

/** The key behind that of an address. */
function behind(group: string, address: Address): string {
  return `${addressKey({ group, address })}~`;
}

function randomOf({ start, end }: Pool): Address {
  const size = end.value - start.value + 1n;
  const at = (BigInt(Math.floor(Math.random() * 2 ** 48)) * size) >> 48n;
  return start.plus(at);
}
