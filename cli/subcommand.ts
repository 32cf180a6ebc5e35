/** Subcommands whose files are loaded when they are called: loading all takes longer than most run. */

import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs';

/** What the file of a subcommand has: its options, and what it does. */
export interface Subcommand<Arguments = object> {
  readonly builder?: (yargs: Argv<object>) => Argv<Arguments>;
  readonly handler: (args: ArgumentsCamelCase<Arguments>) => void | Promise<void>;
}

/**
 * A subcommand as yargs wants it, with what is known of it before it is loaded.
 * @param usage its name and its positional arguments; further names behind it.
 * @param describe what `--help` of the command above says of it; false to leave it out.
 * @param load loads its file.
 */
export function subcommand<Arguments>(
  usage: string | readonly string[],
  describe: string | false,
  load: () => Promise<Subcommand<Arguments>>,
): CommandModule {
  return {
    command: usage,
    describe,
    builder: async (yargs) => {
      const { builder } = await load();
      return builder ? (builder(yargs) as Argv) : yargs;
    },
    handler: async (args) => (await load()).handler(args as ArgumentsCamelCase<Arguments>),
  };
}
