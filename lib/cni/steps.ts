/** Steps of a verb that go on beside one another, or in spite of one another. */

/**
 * Starts a step beside others. A failure is kept until somebody asks for the outcome: one that nobody waits for yet would end
 * the process, with nothing undone.
 * @returns waits for the step, and throws what it threw.
 */
export function begin(step: () => Promise<unknown>): () => Promise<unknown> {
  const started = step();
  started.catch(() => {});
  return () => started;
}

/**
 * Runs the steps of a DEL or GC, every one even when one before it fails.
 * @throws the first error, at the end.
 */
export async function runAll(...steps: (() => Promise<unknown> | unknown)[]): Promise<void> {
  const errors: unknown[] = [];
  for (const step of steps) {
    try {
      await step();
    } catch (error) {
      errors.push(error);
    }
  }
  for (const error of errors.slice(1)) process.stderr.write(`${(error as Error).message}\n`);
  if (errors.length > 0) throw errors[0];
}
