/** Tries again, for a bounded time, what failed because others were faster. */

import { setTimeout as sleep } from 'node:timers/promises';
import { CniError, ErrorCode } from '../../../lib/errors.ts';

/** How long something is tried, in milliseconds. */
export const longestTry = 30_000;
/** Pauses between two attempts, in milliseconds: they grow, and differ from node to node. */
const firstPause = 10;
const longestPause = 500;

export class Tries {
  private readonly what: string;
  private readonly end = performance.now() + longestTry;
  private pause = firstPause;

  /** @param what is changed, as in 'IPPool "a"'. */
  constructor(what: string) {
    this.what = what;
  }

  /**
   * Checks that there is time for another attempt.
   * @param why there is none, and what to do about it; by default, that others were faster.
   * @throws CniError TryAgainLater when there is none.
   */
  check(
    why = `${this.what} could not be changed for ${longestTry / 1000} seconds, as others were faster each time. Try again, or give nodes ranges of their own`,
  ): void {
    if (performance.now() > this.end) throw new CniError(ErrorCode.TryAgainLater, why);
  }

  /** Waits, after others were faster, until it is worth another attempt. @throws as {@link check}. */
  async next(): Promise<void> {
    this.check();
    await sleep(this.pause * (0.5 + Math.random()));
    this.pause = Math.min(longestPause, this.pause * 2);
  }
}
