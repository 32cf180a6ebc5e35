/** `cni network inspect`: everything about some networks, for programs and people. */

import type { Suite } from '../../main.ts';
import { CommandError, ExitCode } from '../errors.ts';
import { withFormat } from '../format.ts';
import { configDir } from '../settings.ts';
import type { Subcommand } from '../subcommand.ts';
import { printStructured, warn } from '../terminal.ts';
import { takeOverview } from './overview.ts';

interface InspectArguments {
  networks?: string[];
  format: 'json' | 'yaml';
}

/** The subcommand. @param suite whose schemas the configurations are checked against. */
export function inspect(suite: Suite): Subcommand<InspectArguments> {
  return {
    builder: (yargs) =>
      withFormat(yargs, ['json', 'yaml'], 'How to print them')
        .positional('networks', { type: 'string', array: true, describe: 'Names of networks' })
        .example('$0 network inspect podnet', 'Who has which address of podnet'),
    handler: async ({ networks: names = [], format }) => {
      const { networks, problems } = await takeOverview(suite);
      for (const problem of problems) warn(problem);
      const found = names.map((name) => {
        const network = networks.find((one) => one.name === name);
        if (network) return network;
        throw new CommandError(
          `No configuration in "${configDir()}" has the network "${name}". See "cni network ls" for those it has`,
        );
      });
      await printStructured(format, found);
      if (found.some((one) => one.problems.length > 0)) process.exitCode = ExitCode.Failure;
    },
  };
}
