/**
 * Where host-local keeps what it gave away: one directory a network, in the reference plugin's format byte for byte,
 * so that either can release what the other reserved.
 *
 *     <dataDir>/<network>/10.1.0.5              "<container ID>\r\n<ifname>"
 *     <dataDir>/<network>/last_reserved_ip.0    where the search in range set 0 goes on
 *     <dataDir>/<network>/lock                  flock(2)ed while any of this is read or written
 *
 * Beside it stands an index from owner to addresses, so that nothing has to read every file:
 *
 *     <dataDir>/.owners/<network>/<container ID>:<ifname>    its addresses, one a line
 *     <dataDir>/.owners/<network>/.stamp                     bears the modification time of the directory it describes
 *
 * After each change both times are set to the same whole millisecond. Any change by somebody else moves the
 * directory's time on, and the index is built anew before it is used.
 */

import {
  closeSync,
  constants,
  fchmodSync,
  openSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
  writeSync,
} from 'node:fs';
import { makeDirectory } from '../../lib/directory.ts';
import { Address } from '../../lib/ip.ts';
import { FileLock } from '../../lib/kernel/lock.ts';

/** Who holds an address. Files of very old versions have no interface name. */
export interface Owner {
  containerId: string;
  ifname: string;
}

/** A network's addresses, locked against other processes while it is open. */
export class Store {
  private readonly directory: string;
  private readonly index: string;
  private readonly lock: FileLock;

  private constructor(directory: string, index: string, lock: FileLock) {
    this.directory = directory;
    this.index = index;
    this.lock = lock;
  }

  /**
   * Opens a network's directory, making it if need be, and waits for its lock.
   * @param dataDir root of all networks' directories.
   * @param network its name, checked by the runner to be one path segment.
   */
  static open(dataDir: string, network: string): Store {
    const directory = `${dataDir}/${network}`;
    try {
      return new Store(directory, `${dataDir}/.owners/${network}`, new FileLock(`${directory}/lock`, 0o750));
    } catch (error) {
      throw new Error(
        `Cannot open "${directory}". Make its parent writable, or set "ipam.dataDir" elsewhere`,
        {
          cause: error,
        },
      );
    }
  }

  /** Opens a network's directory if there is one, so that releasing from it does not create it. */
  static openIfPresent(dataDir: string, network: string): Store | undefined {
    return statSync(`${dataDir}/${network}`, { throwIfNoEntry: false })
      ? Store.open(dataDir, network)
      : undefined;
  }

  /** Gives the lock back. */
  close(): void {
    this.lock.close();
  }

  [Symbol.dispose](): void {
    this.close();
  }

  /**
   * Reserves an address.
   * @returns false when somebody has it.
   */
  reserve(address: Address, owner: Owner, rangeSet: number): boolean {
    this.trustIndex();
    const file = this.fileOf(address);
    let fd: number;
    try {
      fd = openSync(file, constants.O_CREAT | constants.O_EXCL | constants.O_WRONLY, 0o600);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EEXIST') throw error;
      // Whoever writes a file does so under the lock. One that is empty now was left by a process that died
      // before its ADD could succeed, so that nobody uses the address.
      if (statSync(file).size > 0) return false;
      fd = openSync(file, constants.O_WRONLY);
      fchmodSync(fd, 0o600);
    }
    try {
      writeSync(fd, `${owner.containerId}\r\n${owner.ifname}`);
    } catch (error) {
      unlinkSync(file);
      throw error;
    } finally {
      closeSync(fd);
    }
    this.indexOwner(owner, [...this.indexed(owner), address]);
    writeFileSync(`${this.directory}/last_reserved_ip.${rangeSet}`, address.toString(), { mode: 0o600 });
    this.stamp();
    return true;
  }

  /** The addresses of an owner; those in files without an interface name only when there are no others. */
  addressesOf(owner: Owner): Address[] {
    this.trustIndex();
    const own = this.verified(owner);
    return own.length > 0 ? own : this.verified({ containerId: owner.containerId, ifname: '' });
  }

  /** Gives addresses back. Nothing is done for those that are free already. */
  release(owner: Owner, addresses: readonly Address[] = this.addressesOf(owner)): void {
    this.trustIndex();
    for (const address of addresses) rmSync(this.fileOf(address), { force: true });
    for (const key of [owner, { containerId: owner.containerId, ifname: '' }]) {
      const indexed = this.indexed(key);
      const kept = indexed.filter((address) => !addresses.some((gone) => gone.equals(address)));
      if (kept.length < indexed.length) this.indexOwner(key, kept);
    }
    this.stamp();
  }

  /** Every reserved address with its owner; undefined for a file that says nothing. */
  list(): { address: Address; owner: Owner | undefined }[] {
    return this.reserved().map((address) => ({ address, owner: this.ownerOf(address) }));
  }

  /** Every reserved address. */
  reserved(): Address[] {
    return readdirSync(this.directory).flatMap((name) => {
      const address = Address.tryParse(name);
      return address && address.toString() === name ? [address] : [];
    });
  }

  /** The address that was last given away from a range set. */
  lastReserved(rangeSet: number): Address | undefined {
    const text = readIfPresent(`${this.directory}/last_reserved_ip.${rangeSet}`);
    return text === undefined ? undefined : Address.tryParse(text.trim());
  }

  private fileOf(address: Address): string {
    return `${this.directory}/${address}`;
  }

  private ownerOf(address: Address): Owner | undefined {
    const text = readIfPresent(this.fileOf(address))?.trim();
    if (!text) return undefined;
    const [containerId = '', ifname = ''] = text.split('\r\n');
    return { containerId, ifname };
  }

  /** The index names files; what counts is what they say. */
  private verified(owner: Owner): Address[] {
    return this.indexed(owner).filter((address) => {
      const found = this.ownerOf(address);
      return found?.containerId === owner.containerId && found.ifname === owner.ifname;
    });
  }

  private indexed(owner: Owner): Address[] {
    const text = readIfPresent(this.indexFile(owner)) ?? '';
    return text.split('\n').flatMap((line) => Address.tryParse(line) ?? []);
  }

  private indexOwner(owner: Owner, addresses: readonly Address[]): void {
    const file = this.indexFile(owner);
    if (addresses.length === 0) rmSync(file, { force: true });
    else writeFileSync(file, addresses.join('\n'), { mode: 0o600 });
  }

  private indexFile({ containerId, ifname }: Owner): string {
    const key = `${containerId}:${ifname}`;
    if (Buffer.byteLength(key) <= 200) return `${this.index}/${key}`;
    const { createHash } = process.getBuiltinModule('node:crypto');
    return `${this.index}/${createHash('sha512').update(key).digest('hex')}`;
  }

  /** Builds the index anew unless nobody else has changed the directory since it was last brought up to date. */
  private trustIndex(): void {
    const stamp = statSync(`${this.index}/.stamp`, { bigint: true, throwIfNoEntry: false });
    if (stamp && stamp.mtimeNs === statSync(this.directory, { bigint: true }).mtimeNs) return;
    rmSync(this.index, { recursive: true, force: true });
    makeDirectory(this.index, 0o700);
    const owners = new Map<string, { owner: Owner; addresses: Address[] }>();
    for (const { address, owner } of this.list()) {
      if (!owner) continue;
      const file = this.indexFile(owner);
      const entry = owners.get(file) ?? { owner, addresses: [] };
      entry.addresses.push(address);
      owners.set(file, entry);
    }
    for (const { owner, addresses } of owners.values()) this.indexOwner(owner, addresses);
    this.stamp();
  }

  private stamp(): void {
    const now = Date.now() / 1000;
    writeFileSync(`${this.index}/.stamp`, '', { mode: 0o600 });
    utimesSync(this.directory, now, now);
    utimesSync(`${this.index}/.stamp`, now, now);
  }
}

function readIfPresent(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw error;
  }
}
