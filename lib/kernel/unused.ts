/** Finds what nobody uses; a second look tells it from what somebody is about to use. */

import { setTimeout as sleep } from 'node:timers/promises';

/** Far longer than an ADD takes from the creation of something to its use, in milliseconds. */
const addTimeMs = 1000;

/**
 * Looks for what is unused, waits, as an ADD of whatever network may be under way, and looks again.
 * @param look lists what is unused now.
 * @param keyOf tells one from another.
 * @returns what is unused both times.
 */
export async function findUnused<T>(
  look: () => Promise<readonly T[]> | readonly T[],
  keyOf: (one: T) => unknown,
): Promise<T[]> {
  const before = await look();
  if (before.length === 0) return [];
  await sleep(addTimeMs);
  const still = new Set((await look()).map(keyOf));
  return before.filter((one) => still.has(keyOf(one)));
}
