/**
 * Who was let through: a file for each address of each attachment, written before the firewall is told to let
 * it through and removed after it was told to stop. So an ADD that was killed, or a DEL that is given no
 * addresses, leaves no rule behind for whoever gets the address next: DEL and GC find it here. Rules do not
 * survive a reboot, and neither does /run.
 *
 * The name of a file says whose address it is, so that no file has to be read to know; the content of the
 * file is only a hint. The name ends in "leaving" while the firewall is being told to forget the address.
 */

import type { AttachmentId } from '../attachment.ts';
import { CniError, ErrorCode } from '../errors.ts';
import type { Address } from '../ip.ts';
import type { FileLock } from '../kernel/lock.ts';
import { isNetnsGone } from '../kernel/netns.ts';
import { ProgramTimeoutError } from '../kernel/programs.ts';
import { eachTime, type Once } from '../kernel/sharing.ts';
import { listIfDirectory, readStateFile, removeUnfinished, writeStateFile } from '../state-file.ts';
import {
  type Claim,
  type ClaimDetails,
  formatDetails,
  parseDetails,
  parseName,
  removeClaims,
  union,
} from './claim-file.ts';
import { ClaimMarks } from './claim-marks.ts';
import { ClaimsLock } from './claims-lock.ts';
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
  /** Tells the firewall to forget the addresses, unless another attachment has claimed one of them by now. */
  takeBackBy(step: () => Promise<void> | void): Promise<void>;
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
  private readonly lock: ClaimsLock;

  /** @param warn is told of files that are not as they should be. @param look shares what it finds. */
  constructor(warn: (message: string) => void, directory = defaultDirectory, look = eachTime) {
    this.warn = warn;
    this.directory = directory;
    this.marks = new ClaimMarks(directory);
    this.look = look;
    this.lock = new ClaimsLock(`${directory}.lock`, warn);
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
    try {
      using _ = await this.lock.takeUndisturbed(() => this.isBeingReleased(addresses));
      const present = this.listOf(addresses);
      const network = networkTag(attachment.network);
      const outdated = present.filter(
        (claim) => (claim.tag !== tag || claim.isLeaving) && claim.tag.startsWith(network),
      );
      for (const address of addresses) {
        const own = present.find(
          (claim) => claim.tag === tag && !claim.isLeaving && claim.address.equals(address),
        );
        const claim = own ?? { file: `${address}_${tag}.json`, address, tag, isLeaving: false };
        // What was told for those that had it before may still be in effect.
        const before = [...(own ? [own] : []), ...outdated.filter((one) => one.address.equals(address))];
        const told = before.reduce((now, one) => union(this.read(one), now), details);
        writeStateFile(`${this.directory}/${claim.file}`, formatDetails(attachment, told));
        if (!own) taken.push(claim);
      }
      // Whether DEL and GC must find the claims, as the firewall may let the addresses through.
      let mustStay = false;
      let leaving: readonly Claim[] = taken;
      return {
        isNew: present.length === 0,
        settleAfter: async (allow) => {
          try {
            await allow();
          } catch (error) {
            // The firewall may have carried out the request, or may still do so.
            mustStay = error instanceof ProgramTimeoutError;
            throw error;
          }
          // What was there for them already is not taken back.
          mustStay = outdated.length > 0;
          this.tryDropAll(outdated);
        },
        takeBackBy: async (step) => {
          const lock = await this.lock.takeIfPossible();
          const isShared = this.listOf(addresses).some((claim) => claim.tag !== tag && this.isAlive(claim));
          mustStay ||= isShared;
          // Whoever claims an address from now on waits, even if this process is killed.
          if (!isShared) leaving = leaving.map((claim) => this.marks.mark(claim).claim);
          lock?.close();
          if (isShared) return;
          try {
            await step();
          } catch (error) {
            mustStay = true;
            throw error;
          }
        },
        giveBack: () => {
          if (mustStay) for (const claim of leaving) this.marks.unmark(claim);
          else this.tryDropAll(leaving);
        },
      };
    } catch (error) {
      this.tryDropAll(taken);
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
    let lock = await this.lock.takeIfPossible();
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

  private isBeingReleased(addresses: readonly Address[]): boolean {
    return this.listOf(addresses).some((claim) => this.marks.isBeingReleased(claim));
  }

  private listOf(addresses: readonly Address[]): Claim[] {
    return this.list().filter(({ address }) => addresses.some((one) => one.equals(address)));
  }

  private list(): Claim[] {
    // After any other error there may be claims. Treating them as absent would make DEL leave rules behind.
    return listIfDirectory(this.directory, this.warn).flatMap((name) => parseName(name) ?? []);
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
