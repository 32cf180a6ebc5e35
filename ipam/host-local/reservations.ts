/**
 * Reservations as found on disk, in whatever state the files are: one file per address, which names the
 * attachment that holds it.
 */

import { type AttachmentId, attachmentKey } from '../../lib/attachment.ts';
import { isValidName } from '../../lib/cni/invocation.ts';
import { Address } from '../../lib/ip.ts';
import type { Once } from '../../lib/kernel/sharing.ts';
import { Directory } from './directory.ts';
import { capacity, isGateway, type RangeSet, setContains } from './ranges.ts';

/** An address that an entry of a network's directory stands for. */
export interface Reservation {
  readonly address: Address;
  /**
   * Who holds it; undefined when the entry does not say. Files of very old versions name no interface:
   * `ifname` is "".
   */
  readonly owner: AttachmentId | undefined;
  /** What is wrong with the entry; undefined for one that is in order. */
  readonly problem: string | undefined;
  /**
   * `held`: it names its owner. `empty`: a process was killed before it wrote the owner, so that nobody uses
   * the address. `torn`: a file that names no owner, as a power cut leaves it. `unreadable`: not a file, or
   * one that cannot be read.
   */
  readonly state: 'held' | 'empty' | 'torn' | 'unreadable';
}

/** The text of a reservation. */
export function formatOwner({ containerId, ifname }: AttachmentId): string {
  return `${containerId}\r\n${ifname}`;
}

/** Reads one reservation. @returns undefined when the address is free. */
export function readReservation(
  directory: Directory,
  network: string,
  address: Address,
): Reservation | undefined {
  let text: string | undefined;
  try {
    text = directory.read(`${address}`);
  } catch (error) {
    return { address, owner: undefined, problem: (error as Error).message, state: 'unreadable' };
  }
  if (text === undefined) return undefined;
  if (text === '') return { address, owner: undefined, problem: 'It is empty', state: 'empty' };
  const [containerId = '', ifname = '', ...more] = text.trim().split('\r\n');
  if (more.length > 0 || !isValidName(containerId) || /[/\0\s]/.test(ifname))
    return { address, owner: undefined, problem: 'It names no container', state: 'torn' };
  return { address, owner: { network, containerId, ifname }, problem: undefined, state: 'held' };
}

/** The addresses that a network's directory has entries for, held or not. */
export function reservedAddresses(directory: Directory): Address[] {
  return directory.names().flatMap((name) => {
    const address = Address.tryParse(name);
    return address && address.toString() === name ? [address] : [];
  });
}

/** Every reservation in a network's directory. */
export function readReservations(directory: Directory, network: string): Reservation[] {
  return reservedAddresses(directory).flatMap(
    (address) => readReservation(directory, network, address) ?? [],
  );
}

/**
 * The reservations of a network, for reading only: nothing is locked or changed.
 * @param dataDir root of all networks' directories.
 * @returns an empty list when nothing was ever reserved.
 * @throws Error when the directory cannot be read.
 */
export function reservations(dataDir: string, network: string): Reservation[] {
  using directory = Directory.openIfPresent(`${dataDir}/${network}`);
  return directory ? readReservations(directory, network) : [];
}

/** What a process that only reads has seen of a network's reservations. */
export interface SeenReservations {
  readonly all: readonly Reservation[];
  /** The addresses of each attachment, by {@link attachmentKey}. */
  readonly byOwner: ReadonlyMap<string, readonly Address[]>;
}

/** As {@link reservations}, read once for all calls of a process that only reads. */
export function seenReservations(dataDir: string, network: string, once: Once): SeenReservations {
  return once(`reservations ${dataDir}/${network}`, () => {
    const all = reservations(dataDir, network);
    const byOwner = new Map<string, Address[]>();
    for (const { owner, address } of all) {
      if (!owner) continue;
      const key = attachmentKey(owner);
      const known = byOwner.get(key);
      if (known) known.push(address);
      else byOwner.set(key, [address]);
    }
    return { all, byOwner };
  });
}

/** How many addresses of a range set are taken. Empty files do not count: the next ADD takes them over. */
export function countTaken(set: RangeSet, reserved: readonly Reservation[]): number {
  return reserved.filter(
    ({ address, state }) => state !== 'empty' && setContains(set, address) && !isGateway(set, address),
  ).length;
}

/** The range sets that have no free address, so that every ADD fails until one is released. */
export function fullSets(sets: readonly RangeSet[], reserved: readonly Reservation[]): RangeSet[] {
  return sets.filter((set) => BigInt(countTaken(set, reserved)) >= capacity(set));
}

/** One line about a directory's entries that are not reservations, undefined when all are in order. */
export function describeProblems(directory: string, reserved: readonly Reservation[]): string | undefined {
  const bad = reserved.filter(({ state }) => state === 'torn' || state === 'unreadable');
  const [first] = bad;
  if (!first) return undefined;
  const all = bad.length === 1 ? '' : `, and ${bad.length - 1} more like it`;
  return (
    `"${directory}/${first.address}" is not a reservation${all}, so its address is not given away: ` +
    `${first.problem}. Remove it if no container uses the address`
  );
}
