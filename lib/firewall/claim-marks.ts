/**
 * The mark on a claim that is being released: its name, which ends in "leaving", and the modification time of
 * the file. Whoever claims the address meanwhile waits.
 */

import { lstatSync, lutimesSync, renameSync } from 'node:fs';
import { secondsAwake } from '../kernel/boot.ts';
import type { Claim } from './claim-file.ts';
import { lockSeconds, outerLockMs } from './xtables-lock.ts';

/**
 * Seconds after which a claim that is still marked must have been left by a process that died: iptables may
 * wait for its lock twice, and for the lock of other plugins in between.
 */
export const longestRelease = 2 * lockSeconds + outerLockMs / 1000 + 10;

export class ClaimMarks {
  private readonly directory: string;

  /** @param directory with the claims. */
  constructor(directory: string) {
    this.directory = directory;
  }

  /** Marks a claim, if it can. @returns the claim with its new name. */
  mark(claim: Claim): { claim: Claim; isMarked: boolean } {
    const file = claim.file.replace(/json$/, 'leaving');
    let marked = claim;
    try {
      renameSync(this.path(claim.file), this.path(file));
      marked = { ...claim, file, isLeaving: true };
      // If a process that died has marked it before, the time counts from now. It is measured since boot,
      // which /run does not survive, as the clock may be set meanwhile.
      const now = secondsAwake();
      lutimesSync(this.path(file), now, now);
      return { claim: marked, isMarked: true };
    } catch {
      return { claim: marked, isMarked: false };
    }
  }

  /** Removes the mark after a release that failed: nobody should wait for it. */
  unmark({ file }: Claim): void {
    try {
      renameSync(this.path(file), this.path(file.replace(/leaving$/, 'json')));
    } catch {
      // The mark expires after a while.
    }
  }

  /**
   * Whether somebody is releasing it. A time in the future is no mark: the process was killed before it set
   * the time, or is of an older release.
   */
  isBeingReleased({ file, isLeaving }: Claim): boolean {
    if (!isLeaving) return false;
    const now = secondsAwake();
    const at = (lstatSync(this.path(file), { throwIfNoEntry: false })?.mtimeMs ?? 0) / 1000;
    return at > now - longestRelease && at <= now;
  }

  private path(file: string): string {
    return `${this.directory}/${file}`;
  }
}
