/**
 * Who was let through: a file for each address of each attachment, written before the firewall is told to let
 * it through and removed after it was told to stop. So an ADD that was killed, or a DEL that is given no
 * addresses, leaves no rule behind for whoever gets the address next: DEL and GC find it here. Rules do not
 * survive a reboot, and neither does /run.
 *
 * The name of a file says whose address it is, so that no file has to be read to know; the content of the
 * file is only a hint. The name ends in "leaving" while the firewall is being told to forget the address.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { AttachmentId } from '../attachment.ts';
import { CniError, ErrorCode } from '../errors.ts';
import { errnoOf, fileError } from '../file.ts';
import type { Address } from '../ip.ts';
import { secondsAwake } from '../kernel/boot.ts';
import { acquireLock, type FileLock, isLockHeld } from '../kernel/lock.ts';
import { isNetnsGone } from '../kernel/netns.ts';
import { ProgramTimeoutError } from '../kernel/programs.ts';
import { eachTime, type Once } from '../kernel/sharing.ts';
import { listStateFiles, readStateFile, removeUnfinished, writeStateFile } from '../state-file.ts';
import { type Claim, type ClaimDetails, parseDetails, parseName, removeClaims, union } from './claim-file.ts';
import { ClaimMarks, longestRelease } from './claim-marks.ts';
import type { ForwardBackendName } from './forward.ts';
import { attachmentTag, networkTag } from './names.ts';

const defaultDirectory = '/run/cni/firewall';

/** What {@link Claims.take} has done. */
export interface TakenClaims {
  /** Nobody has claimed any of the addresses before. */
  readonly isNew: boolean;
  /**
   * Has the firewall let the new owner through, and then drops the claims that other attachments of the
   * network had on the addresses: a network gives an address to one attachment at a time, so those that had
   * it before are gone.
   * @throws what `allow` throws.
   */
  settleAfter(allow: () => Promise<void>): Promise<void>;
  /** Drops the claims that are new, unless the firewall may let their addresses through nevertheless. */
  giveBack(): void;
}

/** See {@link Claims.release}. */
interface ReleaseOptions {
  readonly known: readonly Address[];
  readonly inUse: boolean;
  isHeld(address: Address): boolean;
}

/** The claims of a host. */
export class Claims {
  private readonly warn: (message: string) => void;
  private readonly directory: string;
  private readonly marks: ClaimMarks;
  private readonly look: Once;

  /** @param warn is told of files that are not as they should be. @param look shares what it finds. */
  constructor(warn: (message: string) => void, directory = defaultDirectory, look = eachTime) {
    this.warn = warn;
    this.directory = directory;
    this.marks = new ClaimMarks(directory);
    this.look = look;
  }

  /**
   * Claims addresses for an attachment.
   * @throws CniError when the claims cannot be written.
   */
  async take(
    attachment: AttachmentId,
    addresses: readonly Address[],
    details: ClaimDetails,
  ): Promise<TakenClaims> {
    const tag = attachmentTag(attachment);
    const taken: Claim[] = [];
    const giveBack = () => this.tryDropAll(taken);
    try {
      using _ = await this.lockUndisturbed(addresses);
      const present = this.list().filter(({ address }) => addresses.some((one) => one.equals(address)));
      for (const address of addresses) {
        const own = present.find(
          (claim) => claim.tag === tag && !claim.isLeaving && claim.address.equals(address),
        );
        const claim = own ?? { file: `${address}_${tag}.json`, address, tag, isLeaving: false };
        this.write(claim, attachment, own ? union(this.read(own), details) : details);
        if (!own) taken.push(claim);
      }
      const network = networkTag(attachment.network);
      const outdated = present.filter(
        (claim) => (claim.tag !== tag || claim.isLeaving) && claim.tag.startsWith(network),
      );
      let isUnheard = false;
      return {
        isNew: present.length === 0,
        settleAfter: async (allow) => {
          try {
            await allow();
          } catch (error) {
            // The firewall may have carried out the request, or may still do so: DEL and GC find the claims.
            isUnheard = error instanceof ProgramTimeoutError;
            throw error;
          }
          this.tryDropAll(outdated);
        },
        giveBack: () => {
          if (!isUnheard) giveBack();
        },
      };
    } catch (error) {
      giveBack();
      if (error instanceof CniError) throw error;
      throw new CniError(
        ErrorCode.IOFailure,
        `Cannot note in "${this.directory}" which addresses the firewall lets through. Make it a writable directory with space left`,
        (error as Error).message,
      );
    }
  }

  /** The claims of an attachment. */
  of(attachment: AttachmentId): Claim[] {
    const tag = attachmentTag(attachment);
    const byTag = () => Map.groupBy(this.list(), (claim) => claim.tag);
    return this.look(`claims ${this.directory}`, byTag).get(tag) ?? [];
  }

  /** Whether an attachment has claims, and the sandboxes of all of them no longer exist. */
  isGone(attachment: AttachmentId): boolean {
    const own = this.of(attachment);
    return own.length > 0 && !own.some((claim) => this.isAlive(claim));
  }

  /** The claims of a network's attachments that are not among the valid ones. */
  stale(network: string, valid: readonly AttachmentId[]): Claim[] {
    const keep = new Set(valid.map(attachmentTag));
    return this.list().filter(({ tag }) => tag.startsWith(networkTag(network)) && !keep.has(tag));
  }

  /** Removes what is left by a process that was killed while it wrote a claim. */
  removeUnfinished(): void {
    removeUnfinished(this.directory);
  }

  /** The claims of all networks for which a backend was used. */
  ofBackend(backend: ForwardBackendName): Claim[] {
    return this.list().filter((claim) => !claim.isLeaving && this.read(claim)?.backends.includes(backend));
  }

  /** What the firewall was told about a claim; undefined when the file cannot be read. */
  read({ file }: Claim): ClaimDetails | undefined {
    try {
      const text = readStateFile(`${this.directory}/${file}`);
      return text === undefined ? undefined : parseDetails(text);
    } catch (error) {
      this.warn(`"${this.directory}/${file}" cannot be used: ${(error as Error).message}`);
      return undefined;
    }
  }

  /**
   * Drops claims, once the firewall no longer lets the addresses through.
   * @param claims what the attachment, or the attachments that no longer exist, still have.
   * @param options.known further addresses, whose owners by now are not known.
   * @param options.inUse whether the claims belong to an attachment whose addresses nobody else on its
   *   network can get yet.
   * @param options.isHeld whether records other than claims say that another attachment has an address.
   * @param remove is given the addresses that no other attachment has claimed, and tells the firewall. It is
   *   also given the lock, if others are kept out by that alone: programs that it starts must hold it, as
   *   they may outlive this process, and would remove the rules of whoever claims an address meanwhile.
   * @throws CniError when a claim cannot be removed, or what `remove` throws.
   */
  async release(
    claims: readonly Claim[],
    { known, inUse, isHeld }: ReleaseOptions,
    remove: (addresses: readonly Address[], lock: FileLock | undefined) => Promise<void>,
  ): Promise<void> {
    const wanted = new Map(claims.map(({ address }) => [`${address}`, address]));
    const isCertain = inUse && known.every((address) => wanted.has(`${address}`));
    let lock = await this.lockIfPossible();
    let leaving = claims;
    let marked: readonly Claim[] = [];
    try {
      for (const address of known) wanted.set(`${address}`, address);
      const own = new Set(claims.map(({ file }) => file));
      for (const claim of this.list())
        if (wanted.has(`${claim.address}`) && !own.has(claim.file) && this.isAlive(claim))
          wanted.delete(`${claim.address}`);
      for (const [text, address] of wanted) if (isHeld(address)) wanted.delete(text);
      // Another network may have the same addresses: whoever claims one meanwhile waits until it has been
      // released. Without a mark on each claim, the lock stays held until the firewall has been told.
      if (isCertain) {
        const marks = claims.map((claim) => this.marks.mark(claim));
        leaving = marks.map(({ claim }) => claim);
        // Others may be releasing what was marked before.
        marked = leaving.filter((_, i) => marks[i]!.isMarked && !claims[i]!.isLeaving);
        if (marks.every(({ isMarked }) => isMarked)) {
          lock?.close();
          lock = undefined;
        }
      }
      await remove([...wanted.values()], lock);
      this.dropAll(leaving);
    } catch (error) {
      // Nobody should wait for a release that has ended. DEL and GC find the claims under either name.
      for (const claim of marked) this.marks.unmark(claim);
      throw error;
    } finally {
      lock?.close();
    }
  }

  /** False for a claim that is being released, and for one whose sandbox no longer exists. */
  private isAlive(claim: Claim): boolean {
    return !claim.isLeaving && !isNetnsGone(this.read(claim)?.netns ?? '');
  }

  /** Takes the lock at a moment when none of the addresses is being released. */
  private async lockUndisturbed(addresses: readonly Address[]): Promise<FileLock> {
    const latest = secondsAwake() + longestRelease;
    for (;;) {
      const lock = await this.lock();
      try {
        if (!this.isDisturbed(addresses, latest)) return lock;
      } catch (error) {
        lock.close();
        throw error;
      }
      lock.close();
      await sleep(5);
    }
  }

  /** @param latest until when to wait at most, in seconds since the host was booted. */
  private isDisturbed(addresses: readonly Address[], latest: number): boolean {
    return this.list().some(
      (claim) =>
        addresses.some((one) => one.equals(claim.address)) &&
        this.marks.isBeingReleased(claim) &&
        secondsAwake() < latest,
    );
  }

  private lock() {
    return acquireLock(`${this.directory}.lock`, longestRelease * 1000);
  }

  /** A full or read-only /run must not keep anybody from cleaning up. */
  private async lockIfPossible() {
    try {
      return await this.lock();
    } catch (error) {
      if (isLockHeld(error)) throw error;
      this.warn(`Going on without the lock "${this.directory}.lock": ${(error as Error).message}`);
      return undefined;
    }
  }

  private list(): Claim[] {
    let names: string[];
    try {
      names = listStateFiles(this.directory);
    } catch (error) {
      // After any other error there may be claims. Treating them as absent would make DEL leave rules behind.
      if (!['ENOTDIR', 'ELOOP'].includes(errnoOf(error) ?? ''))
        throw fileError('list', this.directory, error);
      this.warn(`Cannot list "${this.directory}": ${(error as Error).message}`);
      return [];
    }
    return names.flatMap((name) => parseName(name) ?? []);
  }

  private write(
    { file }: Claim,
    { network, containerId, ifname }: AttachmentId,
    { backends, zone, netns }: ClaimDetails,
  ): void {
    writeStateFile(
      `${this.directory}/${file}`,
      JSON.stringify({ network, containerId, ifname, backends, zone, netns }),
    );
  }

  private dropAll(claims: readonly Claim[]): void {
    removeClaims(this.directory, claims, this.warn);
  }

  private tryDropAll(claims: readonly Claim[]): void {
    try {
      this.dropAll(claims);
    } catch (error) {
      this.warn((error as Error).message);
    }
  }
}
