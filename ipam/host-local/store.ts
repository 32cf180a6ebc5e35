/**
 * Where host-local keeps its reservations: one directory per network, in the reference plugin's format byte
 * for byte, so that each can release what the other reserved.
 *
 *     <dataDir>/<network>/10.1.0.5              "<container ID>\r\n<ifname>"
 *     <dataDir>/<network>/last_reserved_ip.0    where the search in range set 0 goes on
 *     <dataDir>/<network>/lock                  flock(2)ed while any of this is read or written
 *
 * Only the reservations count. The cursors and the index (owner-index.ts) are hints: if they cannot be read
 * or written, as on a full disk, addresses are released all the same.
 */

import { type AttachmentId, attachmentKey } from '../../lib/attachment.ts';
import { CniError } from '../../lib/errors.ts';
import { fileError } from '../../lib/file.ts';
import { Address } from '../../lib/ip.ts';
import { acquireLock, type FileLock } from '../../lib/kernel/lock.ts';
import { Directory } from './directory.ts';
import { OwnerIndex } from './owner-index.ts';
import {
  describeProblems,
  formatOwner,
  type Reservation,
  readReservation,
  readReservations,
  reservedAddresses,
} from './reservations.ts';

/** Which network's reservations are meant, and where warnings go. */
export interface StoreLocation {
  /** Root of all networks' directories. */
  readonly dataDir: string;
  /** Name of the network, checked by the runner to be a single segment of a path. */
  readonly network: string;
  readonly warn: (message: string) => void;
}

/**
 * How long the lock is waited for, in milliseconds. The reference plugin blocks on it, and so is served
 * before those who keep retrying: on a busy host that takes a while.
 */
const longestWait = 30_000;

const elsewhere = ', or set "ipam.dataDir" elsewhere';

/** A network's reservations, locked against other processes while it is open. */
export class Store implements Disposable {
  private readonly network: string;
  private readonly warn: (message: string) => void;
  private readonly directory: Directory;
  private readonly lock: FileLock;
  private readonly index: OwnerIndex;
  /** Empty reservations that were found. They are written under the lock, so their process was killed. */
  private readonly unfinished = new Map<string, Address>();

  private constructor({ dataDir, network, warn }: StoreLocation, directory: Directory, lock: FileLock) {
    this.network = network;
    this.warn = warn;
    this.directory = directory;
    this.lock = lock;
    this.index = new OwnerIndex(dataDir, network, directory, () => this.list(), warn);
  }

  /**
   * Opens a network's directory, creating it if need be, and waits for its lock.
   * @throws CniError TryAgainLater when somebody holds the lock too long, IOFailure when the directory cannot
   * be used.
   */
  static async open(location: StoreLocation): Promise<Store> {
    const path = `${location.dataDir}/${location.network}`;
    try {
      return await Store.lock(location, Directory.openOrCreate(path, 0o755));
    } catch (error) {
      throw error instanceof CniError ? error : fileError('open', path, error, elsewhere);
    }
  }

  /** Opens a network's directory if it exists, so that releasing from it does not create it. */
  static async openIfPresent(location: StoreLocation): Promise<Store | undefined> {
    const path = `${location.dataDir}/${location.network}`;
    try {
      const directory = Directory.openIfPresent(path);
      return directory && (await Store.lock(location, directory));
    } catch (error) {
      throw error instanceof CniError ? error : fileError('open', path, error, elsewhere);
    }
  }

  private static async lock(location: StoreLocation, directory: Directory): Promise<Store> {
    const file = `${directory.path}/lock`;
    try {
      return new Store(location, directory, await acquireLock(file, longestWait, 0o750));
    } catch (error) {
      directory.close();
      throw error;
    }
  }

  /** Gives the lock back. */
  close(): void {
    this.index.close();
    this.directory.close();
    this.lock.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Reserves an address. Whether or not that fails, nobody else's reservation is touched.
   * @returns false when the address is taken.
   */
  reserve(address: Address, owner: AttachmentId, rangeSet: number): boolean {
    try {
      if (!this.create(address, owner)) return false;
    } catch (error) {
      throw fileError('write reservation', this.pathOf(address), error, elsewhere);
    }
    this.index.add(owner, address);
    try {
      this.directory.replace(cursorOf(rangeSet), `${address}`);
    } catch (error) {
      this.warn(
        fileError('note the last address in', `${this.directory.path}/${cursorOf(rangeSet)}`, error).message,
      );
    }
    return true;
  }

  /**
   * The addresses of an attachment; those of entries without an interface name only when there are no others.
   * @param thorough reads every reservation when the index has nothing, as for one that was edited by hand.
   */
  addressesOf(owner: AttachmentId, { thorough = false } = {}): Address[] {
    const nameless = { network: this.network, containerId: owner.containerId, ifname: '' };
    for (const [candidate, enough] of [
      [owner, false],
      [nameless, !thorough],
    ] as const) {
      const indexed = this.index.addressesOf(candidate);
      if (!indexed) break;
      const own = indexed.filter((address) => this.isHeldBy(address, candidate));
      if (own.length < indexed.length) break;
      if (own.length > 0 || enough) return own;
    }
    const held = this.checkedList();
    const addressesHeldBy = (wanted: AttachmentId) =>
      held.flatMap(({ address, owner: holder }) => (holder && isSame(holder, wanted) ? [address] : []));
    const own = addressesHeldBy(owner);
    return own.length > 0 ? own : addressesHeldBy(nameless);
  }

  /**
   * Releases all addresses of an attachment, or does nothing when it has none. Empty reservations of killed
   * processes go as well: nobody knows for whom they were meant.
   * @throws CniError at the end, naming the file.
   */
  release(owner: AttachmentId): void {
    const own = this.addressesOf(owner, { thorough: true }).map((address) => ({ address, owner }));
    const unfinished = [...this.unfinished.values()].map((address) => ({ address, owner: undefined }));
    this.removeAll([...own, ...unfinished]);
  }

  /** Releases one address, unless it is no longer the attachment's. */
  releaseAddress(owner: AttachmentId, address: Address): void {
    if (this.isHeldBy(address, owner)) this.removeAll([{ address, owner }]);
  }

  /**
   * Releases what no attachment to be kept holds, and empty and torn files. Unreadable entries stay.
   * @throws CniError at the end, naming the file that could not be removed.
   */
  collect(isKept: (owner: AttachmentId) => boolean): void {
    // First: what is kept is valid now, whenever it was reserved, even if removing something else fails.
    this.index.noteThisBoot();
    this.removeUnless(isKept);
    // All that is left belongs to this host's runtime.
    this.index.noteThisHost();
  }

  /**
   * Releases what was reserved before the host was last booted, where that is certain: containers do not
   * survive a boot. What the runtime has forgotten would stay reserved for good.
   */
  releaseEarlierBoots(): void {
    if (!this.index.isOfEarlierBoot) return;
    try {
      this.removeUnless(() => false);
    } catch (error) {
      this.warn((error as Error).message);
    }
  }

  /** Every reservation, including those that are not in order. */
  list(): Reservation[] {
    const list = readReservations(this.directory, this.network);
    for (const { address, state } of list) if (state === 'empty') this.unfinished.set(`${address}`, address);
    return list;
  }

  /** Every address that has an entry. */
  reserved(): Address[] {
    return reservedAddresses(this.directory);
  }

  /** The address that was last given away from a range set. */
  lastReserved(rangeSet: number): Address | undefined {
    const name = cursorOf(rangeSet);
    try {
      return Address.tryParse(this.directory.read(name)?.trim() ?? '');
    } catch (error) {
      this.warn(fileError('read the last address in', `${this.directory.path}/${name}`, error).message);
      return undefined;
    }
  }

  /**
   * Creates a reservation, or takes over an empty one: reservations are written under the lock, so the
   * process that left it empty was killed.
   */
  private create(address: Address, owner: AttachmentId): boolean {
    const text = formatOwner(owner);
    if (this.directory.create(`${address}`, text)) return true;
    if (readReservation(this.directory, this.network, address)?.state !== 'empty') return false;
    // A new file in its place: that updates the directory's time, so that the index is rebuilt if this
    // process dies as well.
    this.directory.replace(`${address}`, text);
    this.unfinished.delete(`${address}`);
    return true;
  }

  private removeUnless(isKept: (owner: AttachmentId) => boolean): void {
    this.removeAll(
      this.checkedList().filter(({ owner, state }) => state !== 'unreadable' && !(owner && isKept(owner))),
    );
  }

  private removeAll(entries: readonly { address: Address; owner: AttachmentId | undefined }[]): void {
    const failures: CniError[] = [];
    const released = new Map<string, { owner: AttachmentId; addresses: Address[] }>();
    for (const { address, owner } of entries) {
      try {
        this.directory.remove(`${address}`);
      } catch (error) {
        failures.push(fileError('remove reservation', this.pathOf(address), error));
        continue;
      }
      if (!owner) {
        this.index.noteChange();
        continue;
      }
      const key = attachmentKey(owner);
      const one = released.get(key) ?? { owner, addresses: [] };
      one.addresses.push(address);
      released.set(key, one);
    }
    for (const { owner, addresses } of released.values()) this.index.remove(owner, addresses);
    for (const failure of failures.slice(1)) this.warn(failure.message);
    if (failures[0]) throw failures[0];
  }

  private checkedList(): Reservation[] {
    const list = this.list();
    const problems = describeProblems(this.directory.path, list);
    if (problems) this.warn(problems);
    return list;
  }

  private isHeldBy(address: Address, owner: AttachmentId): boolean {
    const holder = readReservation(this.directory, this.network, address)?.owner;
    return holder !== undefined && isSame(holder, owner);
  }

  private pathOf(address: Address): string {
    return `${this.directory.path}/${address}`;
  }
}

function cursorOf(rangeSet: number): string {
  return `last_reserved_ip.${rangeSet}`;
}

function isSame(a: AttachmentId, b: AttachmentId): boolean {
  return a.containerId === b.containerId && a.ifname === b.ifname;
}
