/** The lock on the claims of a host. See claims.ts. */

import { setTimeout as sleep } from 'node:timers/promises';
import { secondsAwake } from '../kernel/boot.ts';
import { acquireLock, type FileLock, isLockHeld } from '../kernel/lock.ts';
import { longestRelease } from './claim-marks.ts';

export class ClaimsLock {
  private readonly file: string;
  private readonly warn: (message: string) => void;

  /** @param warn is told when the file cannot be used. */
  constructor(file: string, warn: (message: string) => void) {
    this.file = file;
    this.warn = warn;
  }

  /** Takes the lock. @throws like {@link acquireLock}. */
  take(): Promise<FileLock> {
    return acquireLock(this.file, longestRelease * 1000);
  }

  /**
   * Takes the lock at a moment when nothing is to be waited for, or once a release cannot take any longer.
   * @param isDisturbed is asked while the lock is held.
   */
  async takeUndisturbed(isDisturbed: () => boolean): Promise<FileLock> {
    const latest = secondsAwake() + longestRelease;
    for (;;) {
      const lock = await this.take();
      try {
        if (!isDisturbed() || secondsAwake() >= latest) return lock;
      } catch (error) {
        lock.close();
        throw error;
      }
      lock.close();
      await sleep(5);
    }
  }

  /** Takes the lock, if it can: a full or read-only /run must not keep anybody from cleaning up. */
  async takeIfPossible(): Promise<FileLock | undefined> {
    try {
      return await this.take();
    } catch (error) {
      if (isLockHeld(error)) throw error;
      this.warn(`Going on without the lock "${this.file}": ${(error as Error).message}`);
      return undefined;
    }
  }
}
