/** Option `--format`, or `-o`: how a command prints its findings. All commands that print JSON have it. */

import type { Argv } from 'yargs';

/**
 * Adds the option to a command.
 * @param formats the first one is the default.
 * @param describe what `--help` says of it.
 */
export function withFormat<A, F extends string>(
  yargs: Argv<A>,
  formats: readonly [F, ...F[]],
  describe: string,
): Argv<A & { format: F }> {
  const [first] = formats;
  const command = yargs.option('format', {
    alias: 'o',
    choices: formats as readonly F[],
    default: first,
    describe,
  });
  return command as unknown as Argv<A & { format: F }>;
}
