/** `cni repair [NETWORK|POD]…`: restores what others removed from the host side of running attachments. */

import { readLaunch } from '../launcher/launch.ts';
import type { Suite } from '../main.ts';
import { ExitCode } from './errors.ts';
import { doubtsOf, type HostAttachment, takeInventory } from './inventory.ts';
import { findNamed, unknownName } from './names.ts';
import { configuredNetworks } from './networks.ts';
import { repairAttachments, sortOut } from './repair/attachment.ts';
import { describeRepaired, isBroken, nameOf, summarize } from './repair/report.ts';
import { cacheDir, configDir, environment, environmentHelp } from './settings.ts';
import { checkStates } from './state.ts';
import type { Subcommand } from './subcommand.ts';
import { print, warn } from './terminal.ts';

interface RepairArguments {
  names?: string[];
  'dry-run': boolean;
}

/** The subcommand. @param suite the plugins that it repairs. */
export function repair(suite: Suite): Subcommand<RepairArguments> {
  return {
    builder: (yargs) =>
      yargs
        .positional('names', {
          type: 'string',
          array: true,
          describe: 'Networks, pods ("default/web-1") or container IDs; everything without them',
        })
        .option('dry-run', { type: 'boolean', default: false, describe: 'Only tell what is missing' })
        .example('$0 repair --dry-run', 'See what "iptables -F" has taken')
        .example('$0 repair', 'Bring it back')
        .example('$0 repair podnet default/web-1', 'Of one network, and of one pod')
        .epilogue(
          'Masquerading, published ports, the way through the firewall, addresses, ports and state of bridges, routes to pods, ' +
            'forwarding and bandwidth limits are compared with what ADD made, and what is missing is made again. Pods are not ' +
            'touched, and their connections go on. Then CHECK is run: the exit code is 1 if anything remains broken, or with ' +
            `--dry-run if anything is missing, or if a file cannot be read. Attachments whose network namespace is gone are left to "cni gc", and those without a record are not looked at.\n\n${environmentHelp}`,
        ),
    handler: async ({ names = [], 'dry-run': isDryRun }) => {
      const inventory = await takeInventory(configDir(), cacheDir());
      const { problems, unknown } = inventory;
      for (const doubt of doubtsOf(inventory)) warn(doubt);
      const { running, ...others } = sortOut(choose(inventory.attachments, names), inventory);
      const { program } = readLaunch(process.argv);
      const options = { suite, program, environment: environment(), isDryRun };
      const repaired = await repairAttachments(running, inventory, options);
      const present = repaired.filter(({ isDeleted }) => !isDeleted).map(({ attachment }) => attachment);
      const states = await checkStates(present, inventory, options.environment);
      const unchecked = { kind: 'unchecked', problems: [] } as const;
      const checked = repaired.map((one) => ({ ...one, state: states.get(one.attachment) ?? unchecked }));
      for (const one of checked) for (const line of describeRepaired(one, isDryRun)) print(line);
      for (const one of others.orphans) print(`Left to "cni gc": ${nameOf(one)}: ${one.orphaned.join('; ')}`);
      for (const one of others.unrecorded)
        print(`Not looked at: ${nameOf(one)}: no record says how ADD left it`);
      print(summarize(checked, others, isDryRun));
      if (checked.some(isBroken) || problems.length + unknown.length > 0) process.exitCode = ExitCode.Failure;
    },
  };
}

/**
 * The attachments that the names stand for.
 * @throws CommandError for a name that is neither a network, nor a pod, nor the beginning of a container ID.
 */
function choose(all: readonly HostAttachment[], names: readonly string[]): HostAttachment[] {
  if (names.length === 0) return [...all];
  const chosen = names.flatMap((name) => {
    const named = findNamed(all, name, { networks: true });
    if (named.length > 0 || configuredNetworks().includes(name)) return named;
    throw unknownName(name, { networks: true });
  });
  return [...new Set(chosen)];
}
