/** Option `--output`, or `-o`: how a command prints what it has found, the same for all that print JSON. */

import type { Argv } from 'yargs';

/**
 * Adds the option to a command.
 * @param formats the first one is the default.
 * @param describe what `--help` says of it.
 */
export function withOutput<A, F extends string>(
  yargs: Argv<A>,
  formats: readonly [F, ...F[]],
  describe: string,
): Argv<A & { output: F }> {
  const [first] = formats;
  const command = yargs
    .option('output', { alias: 'o', choices: formats as readonly F[], default: first, describe })
    // As scripts for earlier versions have it.
    .option('json', { type: 'boolean', hidden: true })
    .middleware((args) => {
      if (args.json) Object.assign(args, { output: 'json' });
    });
  return command as unknown as Argv<A & { output: F }>;
}
