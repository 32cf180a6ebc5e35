/** `cni network ls|inspect|create`: the networks of the host. */

import type { CommandModule } from 'yargs';
import type { Suite } from '../main.ts';
import { create } from './network/create.ts';
import { inspect } from './network/inspect.ts';
import { ls } from './network/ls.ts';

/** The subcommand. @param suite whose schemas the configurations are held against. */
export function network(suite: Suite): CommandModule {
  return {
    command: 'network',
    describe: 'List, inspect and create the networks of this host',
    builder: (yargs) =>
      yargs
        .command(ls(suite))
        .command(inspect(suite))
        .command(create(suite))
        .demandCommand(1, 'Which command? See "cni network --help"')
        .strict(),
    handler: () => {},
  };
}
