/** `cni network ls|inspect|create`: the networks of the host. */

import type { Suite } from '../main.ts';
import { type Subcommand, subcommand } from './subcommand.ts';

/** The subcommand. @param suite whose schemas the configurations are checked against. */
export function network(suite: Suite): Subcommand {
  return {
    builder: (yargs) =>
      yargs
        .command(
          subcommand(['ls', 'list'], 'List the networks of this host', async () =>
            (await import('./network/ls.ts')).ls(suite),
          ),
        )
        .command(
          subcommand(
            'inspect <networks..>',
            'Show ranges, gateways, attachments and configuration of networks',
            async () => (await import('./network/inspect.ts')).inspect(suite),
          ),
        )
        .command(
          subcommand('create <name>', 'Create a network', async () =>
            (await import('./network/create.ts')).create(suite),
          ),
        )
        .demandCommand(1, 'Which command? See "cni network --help"')
        .strict(),
    handler: () => {},
  };
}
