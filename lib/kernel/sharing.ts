/** What a process that serves many calls at once gives each of them. */

import type { Together } from '../group-commit.ts';

/** A wait for the end of a pipe. */
export interface PipeWatch {
  /** Resolved once the other end has been closed. */
  readonly ended: Promise<void>;
  /** Stops waiting. */
  readonly stop: () => void;
}

/**
 * Waits, without blocking the thread or keeping the process alive, until the other end of a pipe has been
 * closed, and closes this end. When it throws, it has left this end open.
 */
export type WaitForEnd = (pipe: number) => PipeWatch;

/**
 * Looks something up once for all calls of a read-only process, which only looks at the host and changes
 * nothing.
 * @param key names what is looked up. @param look is called once for each key.
 */
export type Once = <T>(key: string, look: () => T) => T;

/** For a read-only process: one look at the host serves all calls. */
export function lookOnce(): Once {
  const seen = new Map<string, unknown>();
  return <T>(key: string, look: () => T) => {
    if (!seen.has(key)) seen.set(key, look());
    return seen.get(key) as T;
  };
}

/** For a process that changes things: each call looks for itself. */
export const eachTime: Once = (_key, look) => look();

/** How calls share one process. A call that has a process to itself has none of this. */
export interface Sharing {
  readonly waitForEnd: WaitForEnd;
  readonly together: Together;
  /** Undefined where calls change things, so that each has to look for itself. */
  readonly once?: Once | undefined;
}
