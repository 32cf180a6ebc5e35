/** `cni gc [NETWORK]`: removes what no longer belongs to a container. */

import { attachmentKey } from '../lib/attachment.ts';
import type { Suite } from '../main.ts';
import { linkRemoval } from './doctor/check.ts';
import { CommandError, describeError, ExitCode } from './errors.ts';
import { collectNode } from './gc/node.ts';
import { doubtsOf, givenName, type HostAttachment, type Inventory, takeInventory } from './inventory.ts';
import type { CachedAttachment } from './libcni/cache.ts';
import { collectGarbage, deleteNetwork, type Environment, type Runtime } from './libcni/chain.ts';
import { hasGarbageCollection, type NetworkList, networkFromCache } from './libcni/conflist.ts';
import { formatPorts } from './list/table.ts';
import { configuredNetworks, findUsedNetwork, warnOfRemoved } from './networks.ts';
import { forgetSaved, readRecord } from './records.ts';
import { cacheDir, configDir, environment, environmentHelp } from './settings.ts';
import type { Subcommand } from './subcommand.ts';
import { count, paint, print, quoted, warn } from './terminal.ts';

interface GcArguments {
  network?: string;
  'dry-run': boolean;
  all: boolean;
  trace: boolean;
  node?: string;
}

/** The subcommand. @param suite whose IPAM plugins know of other nodes. */
export const gc = (suite: Suite): Subcommand<GcArguments> => ({
  builder: (yargs) =>
    yargs
      .positional('network', { type: 'string', describe: 'Name of the network; all of them without it' })
      .positional('netns', {
        type: 'string',
        describe: 'Accepted for compatibility with cnitool, and ignored',
      })
      .option('dry-run', {
        type: 'boolean',
        default: false,
        describe: 'Only tell what would be removed; exit with 1 if anything would be',
      })
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
      .option('node', {
        type: 'string',
        requiresArg: true,
        describe: 'Give back the shared addresses of a node that is gone for good',
      })
      .example('$0 gc podnet --dry-run', 'See what is stale')
      .example('$0 gc podnet', 'Remove it')
      .example('$0 gc', 'Remove what is stale of any network')
      .example('$0 gc --node worker-7', 'Free what worker-7 had of ranges that nodes share')
      .epilogue(
        'What belongs to a container whose network namespace still exists, or whose record cannot be read, is kept. The rest gets a DEL, ' +
          'and with cniVersion 1.1.0 or newer each plugin searches for more. Afterwards, gc verifies what is gone: it prints ' +
          '"Removed" only for that, "Still there" for the rest, and exits with 1 if anything remains. A network with "disableGC" is left alone. ' +
          'Do not add or remove containers meanwhile. With --node, nothing that lives on this host is removed: make sure first that the node is down. ' +
          `A node that has called in the last minutes is left alone.\n\n${environmentHelp}`,
      ),
  handler: async ({ network, 'dry-run': dryRun, all, trace, node }) => {
    if (node !== undefined) {
      if (all) throw new CommandError('Leave out either "--node" or "--all"', { exitCode: ExitCode.Usage });
      const lists = (network === undefined ? configuredNetworks() : [network]).map(findUsedNetwork);
      await collectNode(lists, node, { suite, dryRun });
      return;
    }
    const inventory = await takeInventory(configDir(), cacheDir());
    const { attachments, ruleProblems, unknown, hidden } = inventory;
    for (const doubt of doubtsOf(inventory)) warn(doubt);
    const isSearched = all || unknown.length + hidden.length === 0;
    if (!isSearched) {
      warn(
        'Living attachments may be unknown, as their records are lost, damaged or elsewhere. Only what is certainly orphaned is removed, and the plugins do not search for more',
      );
      process.exitCode = ExitCode.Failure;
    }
    if (ruleProblems.length > 0) process.exitCode = ExitCode.Failure;
    const options = { dryRun, all, trace, isSearched };
    const names = network === undefined ? usedNetworks(inventory) : [network];
    for (const name of names) {
      if (network === undefined) print(paint('bold', name));
      const own = attachments.filter((one) => one.network === name);
      try {
        const veths = hidden.flatMap((one) => (one.networks.includes(name) ? one.interfaces : []));
        await collectNetwork(networkOf(name, inventory), own, { ...options, veths });
      } catch (error) {
        if (network !== undefined) throw error;
        warn(describeError(error));
        process.exitCode = ExitCode.Failure;
      }
    }
    if (names.length === 0) print('This host has no networks.');
  },
});

/** Names of the networks that have a configuration or attachments, sorted. */
function usedNetworks({ networks, attachments }: Inventory): string[] {
  const names = [...networks.map(({ name }) => name), ...attachments.map((one) => one.network)];
  return [...new Set(names)].toSorted();
}

/** A network as of the inventory: collecting another one may remove the last record that it is known by. */
function networkOf(name: string, { networks, delegated }: Inventory): NetworkList {
  const network = networks.find((one) => one.name === name);
  if (network?.file === '' && !delegated.has(name)) warnOfRemoved(name);
  return network ?? findUsedNetwork(name);
}

interface Options extends Pick<GcArguments, 'all' | 'trace'> {
  dryRun: boolean;
  /** Whether the plugins also search for what belongs to no known attachment. */
  isSearched: boolean;
  /** Interfaces that seem to lead to containers of the network that no record names. */
  veths: readonly string[];
}

async function collectNetwork(
  list: NetworkList,
  own: readonly HostAttachment[],
  { dryRun, all, trace, isSearched, veths }: Options,
): Promise<void> {
  const stale = own.filter(({ orphaned }) => all || orphaned.length > 0);
  const kept = own.filter((one) => !stale.includes(one));
  if (dryRun && !list.disableGC) {
    for (const one of stale) print(`Would remove ${describe(one)}`);
    print(`${count(stale.length, 'attachment')} would be removed, ${kept.length} kept.`);
    if (isSearched && hasGarbageCollection(list))
      print('The plugins would also search for what belongs to no attachment, and remove it.');
    if (stale.length > 0) process.exitCode = ExitCode.Failure;
    return;
  }
  const outcome = list.disableGC
    ? refuse(list.name, stale)
    : await collect(list, stale, isSearched ? kept : undefined, environment(trace));
  for (const one of stale) {
    const why = outcome.remaining.get(one);
    print(
      why === undefined
        ? `Removed ${describe(one)}`
        : `${paint('red', 'Still there:')} ${describe(one)}: ${why}`,
    );
  }
  // No record tells DEL of the namespaces that they lead into.
  const interfaces = all ? veths.filter((one) => outcome.interfaces.has(one)) : [];
  if (interfaces.length > 0)
    print(
      `${paint('red', 'Still there:')} interfaces ${quoted(interfaces)}, as no record names them. ` +
        `If no container needs them, remove them with "${linkRemoval(interfaces)}"`,
    );
  for (const error of outcome.errors) warn(describeError(error));
  const left = outcome.remaining.size;
  print(
    `${count(stale.length - left, 'attachment')} removed, ${left > 0 ? `${left} still there, ` : ''}${kept.length} kept.`,
  );
  if (left + interfaces.length + outcome.errors.length > 0) process.exitCode = ExitCode.Failure;
}

function describe(one: HostAttachment): string {
  const what = [...one.ips, formatPorts(one)].filter(Boolean).join(', ') || 'no address';
  const who = [givenName(one), one.containerId, one.ifname || '-'].filter(Boolean).join(' ');
  return `${who}: ${what} (${one.orphaned.join('; ') || 'attached'})`;
}

interface Outcome {
  /** What should have been removed but still exists, and why. */
  readonly remaining: ReadonlyMap<HostAttachment, string>;
  /** What else failed. */
  readonly errors: readonly Error[];
  /** Names of the interfaces that the host has then. */
  readonly interfaces: ReadonlySet<string>;
}

/** The outcome for a network that must not be collected: everything remains. */
function refuse(name: string, stale: readonly HostAttachment[]): Outcome {
  const why = `network "${name}" has "disableGC" set, so that nothing is collected`;
  return { remaining: new Map(stale.map((one) => [one, why])), errors: [], interfaces: new Set() };
}

/**
 * Removes the stale attachments, and checks which of them are really gone.
 * @param kept the attachments to keep; undefined when plugins must not search for more.
 */
async function collect(
  list: NetworkList,
  stale: readonly HostAttachment[],
  kept: readonly HostAttachment[] | undefined,
  environment: Environment,
): Promise<Outcome> {
  const failures = new Map<HostAttachment, Error>();
  for (const one of stale)
    try {
      const record = recordOf(one, environment.cacheDir);
      const network = (record && networkFromCache(record)) ?? list;
      await deleteNetwork(network, runtimeOf(one, record), environment);
      forgetSaved(environment.cacheDir, one);
    } catch (error) {
      failures.set(one, error as Error);
    }
  const errors = kept ? await collectGarbage(list, kept, environment) : [];
  const after = await takeInventory(configDir(), cacheDir());
  const remaining = new Map<HostAttachment, string>();
  for (const one of stale) {
    const failure = failures.get(one);
    const trace = traceOf(one, after);
    if (trace) remaining.set(one, failure ? describeError(failure) : trace);
    else if (failure) errors.push(failure);
  }
  return { remaining, errors, interfaces: new Set(after.links.map(({ name }) => name)) };
}

/** @returns undefined if there is no usable record: a damaged one must not prevent the removal. */
function recordOf(one: HostAttachment, cacheDir: string): CachedAttachment | undefined {
  try {
    return readRecord(cacheDir, one);
  } catch {
    return undefined;
  }
}

/** What DEL is told about an attachment: as much as was recorded. */
function runtimeOf(one: HostAttachment, record: CachedAttachment | undefined): Runtime {
  const { containerId, ifname, netns } = one;
  return { containerId, ifname: ifname || 'eth0', args: [], capabilityArgs: {}, ...record, netns };
}

/** What is left of an attachment. @returns undefined when nothing is. */
function traceOf(
  one: HostAttachment,
  { attachments, links, ruleProblems: [problem] }: Inventory,
): string | undefined {
  const found = attachments.find((other) => attachmentKey(other) === attachmentKey(one));
  if (found) return found.orphaned.join('; ') || 'its record exists';
  const link = links.find(({ kind, name }) => kind === 'veth' && one.hostInterfaces.includes(name));
  if (link) return `interface "${link.name}" exists`;
  return problem && `rules for it may exist. ${problem}`;
}
