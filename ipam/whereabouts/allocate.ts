/**
 * How addresses are allocated: a part of each range is read, and one transaction takes addresses that nobody
 * has. No lock is held, and the cost does not depend on how large a range is.
 */

import type { EtcdClient } from '../../lib/etcd/client.ts';
import { get, hasValue, isAbsent, type OperationResult, range, transact } from '../../lib/etcd/kv.ts';
import { Address } from '../../lib/ip.ts';
import { alreadyReserved, nothingFree, otherAddresses, type Source as PoolSource } from './backend.ts';
import {
  addressKey,
  addressOf,
  behind,
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
import { type Choice, mostChoices, offersOf, take } from './offers.ts';
import { capacityOf, formatPool, nextOf, type Pool, poolHas } from './pools.ts';
import { countUsed } from './usage.ts';

/** How many consecutive addresses of a range are read at once. */
const page = 256;
/** How many times addresses are chosen while others are faster. */
const attempts = 30;

/** A source, and the group that its addresses belong to. */
interface Source extends PoolSource {
  readonly group: string;
}

/**
 * Gives an attachment an address of each source, or those that it has already.
 * @param whose whom addresses in quarantine go back to, and the host that the attachment is on.
 * @param onUncertain is called before the attachment, which has none, may get addresses.
 * @returns a place for each source; whether they are new.
 * @throws Error when there is none; EtcdUnavailableError, CniError as {@link transact}.
 */
export async function allocate(
  client: EtcdClient,
  owner: Owner,
  whose: Pick<Holding, 'identity' | 'host'>,
  sources: readonly Source[],
  onUncertain: () => void,
): Promise<{ places: Place[]; isNew: boolean }> {
  const { identity } = whose;
  const cursors: Cursor[] = sources.map(() => anywhere);
  const proposed: string[] = [];
  for (let lost = 0; lost < attempts; ) {
    const view = await look(client, owner, identity, sources, cursors);
    const own = assign(view.holding, sources);
    // A member whose answer came too late has carried out the transaction all the same.
    if (own && view.holding) return { places: own, isNew: proposed.includes(formatHolding(view.holding)) };
    if (view.holding)
      throw otherAddresses(
        owner,
        view.holding.places.map(({ address }) => address),
      );
    const lists = sources.map((source, i) => choicesOf(source, view.parts[i]!, view.waiting, identity));
    if (lists.some((list) => list.length === 0)) {
      for (const [i, source] of sources.entries())
        if (lists[i]!.length === 0)
          cursors[i] = await nextPart(client, source, view.parts[i]!, cursors[i]!, owner);
      continue;
    }
    const offers = offersOf(lists, whose);
    proposed.push(...offers.map(({ holding }) => formatHolding(holding)));
    onUncertain();
    const taken = await take(client, owner, offers, view.waiting);
    if (taken) return { places: [...taken.places], isNew: true };
    lost++;
    cursors.fill(anywhere);
  }
  throw new Error(
    `Others were faster ${attempts} times in taking an address of ${sources.map(({ pool }) => formatPool(pool)).join(' and ')}. Try again, or make the range larger`,
  );
}

/** Where a part of a range begins. */
interface Cursor {
  /** Undefined for a random place. */
  readonly at: Address | undefined;
  /** Whether the search has passed the end of the range, and gone on at its start. */
  readonly hasWrapped: boolean;
}

const anywhere: Cursor = { at: undefined, hasWrapped: false };

/** A part of a range, as it was read. */
interface Part {
  readonly begin: Address;
  readonly end: Address;
  readonly taken: ReadonlySet<bigint>;
}

interface View {
  /** What the attachment has already. */
  readonly holding: Holding | undefined;
  /** Addresses in quarantine that may go back to it. */
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
  const bounds = sources.map(({ pool, wanted }, i) => {
    const begin = wanted ?? cursors[i]!.at ?? randomOf(pool);
    return { begin, end: wanted ?? endOf(pool, begin) };
  });
  const { results } = await transact(client, {
    compare: [],
    success: [
      get(ownerKey(owner)),
      get(identityKey(identity)),
      ...sources.flatMap(({ pool, group }, i) => {
        const { begin, end } = bounds[i]!;
        const keys = range(addressKey({ group, address: begin }), behind({ group, address: end }), {
          keysOnly: true,
        });
        return [get(legacyKey(pool.subnet)), keys];
      }),
    ],
  });
  const [own, back] = results;
  return {
    holding: own?.kvs[0] && parseHolding(own.kvs[0].value),
    waiting: identity === '' || !back?.kvs[0] ? undefined : parseHolding(back.kvs[0].value),
    parts: bounds.map((bound, i) => ({ ...bound, taken: takenOf(results.slice(2 + 2 * i, 4 + 2 * i)) })),
  };
}

function takenOf([legacy, keys]: readonly OperationResult[]): Set<bigint> {
  const listed = parseLegacy(legacy?.kvs[0]?.value).map(({ address }) => address);
  const found = (keys?.kvs ?? []).flatMap(({ key }) => addressOf(key) ?? []);
  return new Set([...found, ...listed].map(({ value }) => value));
}

/** Up to {@link mostChoices} free addresses of a part, at random; first, one in quarantine for the pod. */
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
    group,
    address,
    condition: isAbsent(addressKey({ group, address })),
  });
  if (wanted) {
    const own = back.find(({ address }) => address.equals(wanted));
    return own ? [own] : taken.has(wanted.value) ? [] : [chooseOne(wanted)];
  }
  const free = freeAddresses(pool, begin, end, taken);
  const chosen: Choice[] = back.slice(0, 1);
  while (chosen.length < mostChoices && free.length > 0)
    chosen.push(chooseOne(free.splice(Math.floor(Math.random() * free.length), 1)[0]!));
  return chosen;
}

/** The addresses of a part that nobody has. */
function freeAddresses(pool: Pool, begin: Address, end: Address, taken: ReadonlySet<bigint>): Address[] {
  const free: Address[] = [];
  for (let { value } = begin; value <= end.value && free.length < page; value++) {
    const gap = pool.gaps.find(({ first, last }) => value >= first && value <= last);
    if (gap) value = gap.last;
    else if (!taken.has(value)) free.push(new Address(pool.start.family, value));
  }
  return free;
}

/**
 * Where to continue the search for a free address.
 * @throws Error when all of the range is taken; EtcdUnavailableError, CniError as {@link transact}.
 */
async function nextPart(
  client: EtcdClient,
  source: Source,
  { begin, end }: Part,
  { at, hasWrapped }: Cursor,
  owner: Owner,
): Promise<Cursor> {
  const { pool, wanted } = source;
  if (wanted) throw alreadyReserved(wanted);
  const next = nextOf(pool, end.value + 1n);
  const wraps = next.value <= end.value;
  const isSeen = wraps && (hasWrapped || begin.equals(nextOf(pool, pool.start.value)));
  // A large range is counted before it is searched.
  if (isSeen || (!at && BigInt(await countUsed(client, source)) >= capacityOf(pool)))
    throw nothingFree(formatPool(pool), owner);
  return { at: next, hasWrapped: hasWrapped || wraps };
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

/** The last address of the part that begins at an address. */
function endOf({ end }: Pool, begin: Address): Address {
  return end.value - begin.value < BigInt(page) ? end : begin.plus(page - 1);
}

/** Where reading a range begins: at a random place, unless all of it is read. */
function randomOf(pool: Pool): Address {
  const { start, end } = pool;
  const size = end.value - start.value + 1n;
  if (size <= BigInt(page)) return nextOf(pool, start.value);
  return nextOf(pool, start.value + ((BigInt(Math.floor(Math.random() * 2 ** 48)) * size) >> 48n));
}
