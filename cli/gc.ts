/** `cni gc NETWORK`: removes what belongs to no container any more. */

import type { CommandModule } from 'yargs';
import { takeInventory } from './inventory.ts';
import { collectGarbage } from './libcni/chain.ts';
import { formatPorts } from './list.ts';
import { cacheDir, configDir, environment, environmentHelp, findNetwork } from './network.ts';
import { count, print } from './terminal.ts';

interface GcArguments {
  network: string;
  'dry-run': boolean;
  all: boolean;
  trace: boolean;
}

export const gc: CommandModule<object, GcArguments> = {
  command: 'gc <network> [netns]',
  describe: 'Remove what belongs to no container any more',
  builder: (yargs) =>
    yargs
      .positional('network', { type: 'string', demandOption: true, describe: 'Name of the network' })
      .positional('netns', { type: 'string', describe: 'Taken for the sake of cnitool, and not used' })
      .option('dry-run', { type: 'boolean', default: false, describe: 'Only tell what would be removed' })
      .option('all', {
        type: 'boolean',
        default: false,
        describe: 'Detach every recorded attachment, as cnitool does',
      })
      .option('trace', {
        type: 'boolean',
        default: false,
        describe: "Show each plugin's time, input and result",
      })
      .example('$0 gc podnet --dry-run', 'See what is stale')
      .example('$0 gc podnet', 'Remove it')
      .epilogue(
        'What is kept are the attachments that a runtime has recorded and whose network namespace is still there. ' +
          `No container may be added or removed meanwhile.\n\n${environmentHelp}`,
      ),
  handler: async ({ network, 'dry-run': dryRun, all, trace }) => {
    const list = findNetwork(network);
    const own = takeInventory(configDir(), cacheDir()).attachments.filter((one) => one.network === network);
    const stale = own.filter(({ orphaned }) => all || orphaned.length > 0);
    for (const one of stale)
      print(
        `${dryRun ? 'Would remove' : 'Removing'} ${one.containerId} ${one.ifname}: ${[...one.ips, formatPorts(one)].filter(Boolean).join(', ')} (${one.orphaned.join('; ') || 'attached'})`,
      );
    if (!dryRun) {
      const valid = own
        .filter((one) => !stale.includes(one))
        .map(({ containerId, ifname }) => ({ containerID: containerId, ifname }));
      await collectGarbage(list, valid, environment(trace));
    }
    print(
      `${count(stale.length, 'attachment')} ${dryRun ? 'would be removed' : 'removed'}, ${own.length - stale.length} kept.`,
    );
  },
};
