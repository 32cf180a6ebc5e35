/**
 * Work that several calls of one process do together. The kernel and the programs of the host take about as
 * long for the rules or interfaces of thirty calls as for those of one. No call is delayed for that by more
 * than a turn of the event loop; calls that come while others are at work are served together after them.
 */

import { setImmediate } from 'node:timers/promises';

/** How pieces of work are done together. */
export interface Commit<T> {
  /** Does all pieces, in order; if it fails, it must not have done any of them. */
  run(pieces: readonly T[]): Promise<void>;
  /** Whether an error is due to one of the pieces, so that the others should be done without it. */
  isRefusal(error: unknown): boolean;
}

/**
 * Does a piece of work, by itself or with that of other calls.
 * @param key what is done together: every piece with this key has the same {@link Commit}.
 * @throws what the commit threw for this piece.
 */
export type Together = <T>(key: string, piece: T, commit: Commit<T>) => Promise<void>;

/** For a process that serves one call. */
export const alone: Together = (_key, piece, commit) => commit.run([piece]);

/** A piece of work that is waiting, and how to tell the caller its outcome. */
interface Waiting<T> {
  readonly piece: T;
  resolve(): void;
  reject(error: unknown): void;
}

/** For a process that serves many calls. */
export function groupCommits(): Together {
  const queues = new Map<string, Waiting<unknown>[]>();
  return (key, piece, commit) =>
    new Promise((resolve, reject) => {
      const one = { piece, resolve, reject } as Waiting<unknown>;
      const queue = queues.get(key);
      if (queue) {
        queue.push(one);
        return;
      }
      queues.set(key, [one]);
      void work(queues, key, commit as Commit<unknown>);
    });
}

/** Commits what waits, and what comes meanwhile, until nothing is left. */
async function work<T>(queues: Map<string, Waiting<T>[]>, key: string, commit: Commit<T>): Promise<void> {
  // Work that begins together, such as that for the networks of one pod, arrives within this turn of the
  // event loop.
  await setImmediate();
  for (;;) {
    const group = queues.get(key)!.splice(0);
    if (group.length === 0) break;
    await commitGroup(group, commit);
  }
  queues.delete(key);
}

/** A group that is refused is split in halves, so that every piece gets an error of its own, or none. */
async function commitGroup<T>(group: readonly Waiting<T>[], commit: Commit<T>): Promise<void> {
  try {
    await commit.run(group.map(({ piece }) => piece));
    for (const { resolve } of group) resolve();
  } catch (error) {
    if (group.length === 1 || !commit.isRefusal(error)) {
      for (const { reject } of group) reject(error);
      return;
    }
    const half = group.length >> 1;
    await commitGroup(group.slice(0, half), commit);
    await commitGroup(group.slice(half), commit);
  }
}
