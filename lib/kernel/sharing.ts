/** What a process with many calls under way gives each of them. */

import type { Together } from '../group-commit.ts';

/**
 * Waits, without blocking the thread, until the other end of a pipe has been closed, and closes this one.
 * When it fails, it has left this one open.
 */
export type WaitForEnd = (pipe: number) => Promise<void>;

/** How calls share one process. A call that has a process to itself has none of this. */
export interface Sharing {
  readonly waitForEnd: WaitForEnd;
  readonly together: Together;
}
