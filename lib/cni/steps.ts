/** Running the steps of a verb concurrently, or each even if others fail. */

import type { Call } from './call.ts';

/**
 * Starts a step in the background. Its failure is kept until somebody waits for the outcome: as an unhandled
 * rejection it would end the process with nothing undone.
 * @returns a function that waits for the step, and throws what it threw.
 */
export function startBackground<T>(step: () => Promise<T>): () => Promise<T> {
  const started = step();
  started.catch(() => {});
  return () => started;
}

/**
 * Does a step while another, started before, runs in the background. Returns when both have ended.
 * @param background what {@link startBackground} returned.
 * @throws the error of the step, else that of the background.
 */
export async function runBeside<T>(
  call: Call,
  background: () => Promise<unknown>,
  step: () => Promise<T> | T,
): Promise<T> {
  let result: T | undefined;
  await runAll(
    call,
    async () => {
      result = await step();
    },
    background,
  );
  return result as T;
}

/**
 * Runs steps one after the other, each even when one before it fails.
 * @throws the first error, at the end; further ones go to standard error.
 */
export async function runAll(call: Call, ...steps: (() => Promise<unknown> | unknown)[]): Promise<void> {
  const errors: unknown[] = [];
  for (const step of steps) {
    try {
      await step();
    } catch (error) {
      errors.push(error);
    }
  }
  for (const error of errors.slice(1)) call.warn((error as Error).message);
  if (errors.length > 0) throw errors[0];
}

/**
 * Runs steps concurrently, each whatever comes of the others.
 * @throws the first error, by the order of the steps, once all have ended; further ones go to standard error.
 */
export async function runTogether(call: Call, ...steps: (() => Promise<unknown>)[]): Promise<void> {
  await runAll(call, ...steps.map(startBackground));
}
