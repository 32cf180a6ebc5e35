/**
 * An index from owner to addresses beside the reservations, so that nothing has to read every one of them:
 *
 *     <dataDir>/.owners/<network>/<hash of container ID and ifname>    addresses, one per line
 *     <dataDir>/.owners/<network>/stamp    has the modification time of the directory it describes
 *     <dataDir>/.owners/<network>/hosts    "<boot ID> <hash of the host's number>", a line for each host
 *
 * The index is valid while the directory's modification time equals the stamp's. A change of ours ends by
 * setting both to the same time, a second in the past. A change by anybody else sets the directory's time to
 * the present, which therefore differs, even within one tick of the kernel's clock, and the index is rebuilt
 * before it is used. It is only a hint: the reservations themselves are what counts, and without an index, as
 * on a full disk, all of them are read.
 *
 * The stamp also says in which boot of the host it was made. If the times agree and that boot has ended, all
 * reservations are older than this boot: no container can use them any more, whatever the clock says. A boot
 * of another host that shares the directory, as over NFS, looks like one that has ended. So the stamp counts
 * only if this host alone has reserved there, in the boot that the stamp names. Only hosts that run this
 * release or a later one are noted: what the reference plugin or an earlier release has reserved on another
 * host cannot be told from what this one has. Once nothing of other hosts can be left, their lines go: a host
 * whose number has changed would count as two for good.
 */

import type { AttachmentId } from '../../lib/attachment.ts';
import { fileError } from '../../lib/file.ts';
import { Address } from '../../lib/ip.ts';
import { bootId, isEarlierBoot } from '../../lib/kernel/boot.ts';
import { hostNumber } from '../../lib/kernel/host.ts';
import { Directory } from './directory.ts';
import { type Reservation, reservedAddresses } from './reservations.ts';

const stampFile = 'stamp';
const hostsFile = 'hosts';
/** How many hosts are noted at most: two already show that the reservations are not all of one host. */
const mostHosts = 16;

/** The index of one network, used under the network's lock only. */
export class OwnerIndex implements Disposable {
  private readonly path: string;
  private readonly reservations: Directory;
  private readonly warn: (message: string) => void;
  private directory: Directory | undefined;
  private changed = false;
  /** How many addresses were reserved in this call. */
  private added = 0;
  /** The boot, ended since, in which everything that is reserved already was. */
  private earlierBoot: string | undefined;

  /** @param dataDir root of all networks' directories. @param reservations the network's own directory. */
  constructor(
    dataDir: string,
    network: string,
    reservations: Directory,
    list: () => readonly Reservation[],
    warn: (message: string) => void,
  ) {
    this.path = `${dataDir}/.owners/${network}`;
    this.reservations = reservations;
    this.warn = warn;
    this.open(dataDir, network, list);
  }

  /** Opens the index, and brings it up to date if somebody else has reserved or released. */
  private open(dataDir: string, network: string, list: () => readonly Reservation[]): void {
    try {
      using owners = Directory.openOrCreate(`${dataDir}/.owners`, 0o700);
      this.directory = owners.openOrCreate(network, 0o700);
      const stamp = this.directory.modified(stampFile);
      if (stamp === undefined || stamp !== this.reservations.modified()) this.build(this.directory, list());
      else this.earlierBoot = endedBoot(this.directory);
    } catch (error) {
      this.abandon(error);
    }
  }

  /** Whether everything that is reserved already was before the host was last booted. */
  get isOfEarlierBoot(): boolean {
    return this.earlierBoot !== undefined;
  }

  /** Notes that some of the reservations may be from this boot. */
  noteThisBoot(): void {
    if (this.earlierBoot === undefined) return;
    this.earlierBoot = undefined;
    this.changed = true;
  }

  /** Notes that all reservations are this host's. */
  noteThisHost(): void {
    this.attempt((directory) => {
      if (directory.read(hostsFile) === `${bootId()} ${ownHost()}`) return;
      directory.remove(hostsFile);
      this.changed = true;
    });
  }

  /** The addresses that an owner may have; undefined when the index cannot tell. */
  addressesOf(owner: AttachmentId): Address[] | undefined {
    return this.attempt((directory) => this.read(directory, fileOf(owner)));
  }

  /** Notes that an address was reserved, in this boot. */
  add(owner: AttachmentId, address: Address): void {
    this.noteThisBoot();
    this.added++;
    this.change(owner, (addresses) => [...addresses, address]);
  }

  /** Notes that an entry which named no owner was removed. */
  noteChange(): void {
    this.changed = true;
  }

  /** Notes that addresses were released. */
  remove(owner: AttachmentId, released: readonly Address[]): void {
    this.change(owner, (addresses) =>
      addresses.filter((address) => !released.some((gone) => gone.equals(address))),
    );
  }

  /** Records that the index matches the reservations as they are now. */
  close(): void {
    if (this.changed)
      this.attempt((directory) => {
        const boot = this.earlierBoot ?? bootId();
        // Without the stamp, the next call rebuilds the index.
        if (boot === undefined) return;
        // The kernel's clock stands still between two ticks: a change by somebody else within this one must
        // not get the same time.
        const past = Date.now() / 1000 - 1;
        this.noteHost(directory, boot);
        this.reservations.touch(past);
        directory.replace(stampFile, boot);
        directory.touchFile(stampFile, past);
      });
    this.directory?.close();
    this.directory = undefined;
  }

  [Symbol.dispose](): void {
    this.close();
  }

  private build(directory: Directory, reservations: readonly Reservation[]): void {
    for (const name of directory.names()) if (name !== hostsFile) directory.remove(name);
    const files = new Map<string, Address[]>();
    for (const { address, owner } of reservations) {
      if (!owner) continue;
      const file = fileOf(owner);
      files.set(file, [...(files.get(file) ?? []), address]);
    }
    for (const [file, addresses] of files) directory.create(file, addresses.join('\n'));
    this.changed = true;
  }

  /** Notes that this host has reserved in a boot, alongside others that may still have something reserved. */
  private noteHost(directory: Directory, boot: string): void {
    const lines = (directory.read(hostsFile) ?? '').split('\n').filter(Boolean);
    const isNoted = lines.some((line) => line.startsWith(`${boot} `));
    if (isNoted && lines.length === 1) return;
    const isAlone = reservedAddresses(this.reservations).length === this.added;
    if (isNoted && !isAlone) return;
    const host = ownHost();
    const others = isAlone ? [] : lines.filter((line) => !line.endsWith(` ${host}`)).slice(1 - mostHosts);
    directory.replace(hostsFile, [...others, `${boot} ${host}`].join('\n'));
  }

  private change(owner: AttachmentId, next: (addresses: Address[]) => Address[]): void {
    this.changed = true;
    this.attempt((directory) => {
      const file = fileOf(owner);
      const addresses = next(this.read(directory, file));
      if (addresses.length === 0) directory.remove(file);
      else directory.replace(file, addresses.join('\n'));
    });
  }

  private read(directory: Directory, file: string): Address[] {
    const text = directory.read(file) ?? '';
    return text.split('\n').flatMap((line) => Address.tryParse(line) ?? []);
  }

  /** Does something with the index, which is not used any further once that fails. */
  private attempt<T>(work: (directory: Directory) => T): T | undefined {
    if (!this.directory) return undefined;
    try {
      return work(this.directory);
    } catch (error) {
      this.abandon(error);
      return undefined;
    }
  }

  private abandon(error: unknown): void {
    this.directory?.close();
    this.directory = undefined;
    const { message } = fileError('use the index in', this.path, error);
    this.warn(`${message}. Without it every reservation is read`);
  }
}

/** The boot that the stamp names, if it has ended and was this host's, and no other host has reserved. */
function endedBoot(directory: Directory): string | undefined {
  const boot = directory.read(stampFile);
  if (!isEarlierBoot(boot)) return undefined;
  const host = hostHash();
  return host && directory.read(hostsFile) === `${boot} ${host}` ? boot : undefined;
}

/** This host, as the lines of the hosts file name it. */
const ownHost = () => hostHash() ?? 'unknown';

/** Identifies this host, without loading node:crypto, which takes longer than all else here. */
function hostHash(): string | undefined {
  const number = hostNumber();
  return number && hashOf(`host-local ${number}`);
}

/**
 * Name of an owner's file: FNV-1a, twice. A collision does no harm, as the reservations tell whose an address
 * is; and what a reservation says never becomes part of a path.
 */
function fileOf({ containerId, ifname }: AttachmentId): string {
  return hashOf(`${containerId}:${ifname}`);
}

function hashOf(text: string): string {
  return `${fnv1a(text, 0x811c9dc5)}${fnv1a(text, 0x9dc5811c)}`;
}

function fnv1a(text: string, basis: number): string {
  let hash = basis;
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
  return (hash >>> 0).toString(16).padStart(8, '0');
}
