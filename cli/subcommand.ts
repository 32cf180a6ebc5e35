/** Subcommands whose files are loaded when they are called: loading all would take longer than most run. */

import type { ArgumentsCamelCase, Argv, CommandModule } from 'yargs';

/** What the file of a subcommand exports: its options, and what it does. */
export interface Subcommand<Arguments = object> {
  readonly builder?: (yargs: Argv<object>) => Argv<Arguments>;
  readonly handler: (args: ArgumentsCamelCase<Arguments>) => void | Promise<void>;
}

/**
 * A subcommand as yargs wants it, with what is known about it before it is loaded.
 * @param usage its name and its positional arguments; aliases may follow.
 * @param describe what `--help` of the command above says about it; false to leave it out.
 * @param load loads its file, which may show the description as well.
 */
export function subcommand<Arguments>(
  usage: string | readonly string[],
  describe: string | false,
  load: (describe: string) => Promise<Subcommand<Arguments>>,
): CommandModule {
  const loaded = () => load(describe || '');
  return {
    command: usage,
    describe,
    builder: async (yargs) => {
      const { builder } = await loaded();
      return builder ? (builder(yargs) as Argv) : yargs;
    },
    handler: async (args) => (await loaded()).handler(args as ArgumentsCamelCase<Arguments>),
  };
}
