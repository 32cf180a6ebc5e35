/** `cni list`: every attachment of the host, and the state it was seen in. */

import { lookOnce } from '../lib/kernel/sharing.ts';
import { CommandError, ExitCode } from './errors.ts';
import { withFormat } from './format.ts';
import { displayName, type HostAttachment, type Inventory, takeInventory } from './inventory.ts';
import { formatListing, type Layout } from './list/table.ts';
import { watchListing } from './list/watch.ts';
import { findNamed } from './names.ts';
import { checkedAttachment, printedRange } from './printed.ts';
import { isFull } from './reservations.ts';
import { cacheDir, configDir, environment } from './settings.ts';
import { checkStates, isBad, type State, stateKinds } from './state.ts';
import type { Subcommand } from './subcommand.ts';
import { count, paint, print, printStructured, warn } from './terminal.ts';

/** Which attachments to list. */
interface Selection {
  network?: string[] | undefined;
  pod?: string[] | undefined;
  state?: State['kind'][] | undefined;
}

interface ListArguments extends Selection {
  format: Layout | 'json' | 'yaml' | 'name';
  orphaned: boolean;
  watch: boolean;
}

/** What was found on the host. */
interface Listing {
  readonly inventory: Inventory;
  /** Attachments that were asked for, with what CHECK says of them. */
  readonly rows: readonly Row[];
}

/** An attachment and its state. */
interface Row {
  readonly attachment: HostAttachment;
  readonly state: State;
}

export const list: Subcommand<ListArguments> = {
  builder: (yargs) =>
    withFormat(
      yargs,
      ['table', 'wide', 'json', 'yaml', 'name'],
      'How to print the list; wide has whole IDs, namespaces and interfaces of the host',
    )
      .option('network', { type: 'string', array: true, nargs: 1, describe: 'Only those of this network' })
      .option('pod', {
        type: 'string',
        array: true,
        nargs: 1,
        describe: 'Only those of this pod or container: NAMESPACE/NAME, NAME, or how its ID begins',
      })
      .option('state', { array: true, nargs: 1, choices: stateKinds, describe: 'Only those in this state' })
      .option('orphaned', {
        type: 'boolean',
        default: false,
        describe: 'Short for --state orphaned, and adds to it',
      })
      .option('watch', {
        alias: 'w',
        type: 'boolean',
        default: false,
        describe: 'Go on, and show what changes, until Ctrl-C',
      })
      .example('$0 list', 'Which pod has which address, and whether it is in order')
      .example('$0 list --state broken -o wide', 'What needs attention')
      .example('$0 list --orphaned', 'What "cni gc" would collect')
      .epilogue(
        'It is composed of the result cache, the reservations of host-local, the rules of the firewall and the kernel. ' +
          'The state is what CHECK of every plugin says now: ok; broken, with the reason; orphaned, when it belongs to no container any more; ' +
          'unchecked, when its plugins cannot tell, and its interface is there, up and has its addresses.\n\n' +
          'The exit code is 1 if something listed is broken or orphaned, or a file cannot be read.',
      ),
  handler: async ({ format, orphaned, watch, ...given }) => {
    const state = orphaned ? [...(given.state ?? []), 'orphaned' as const] : given.state;
    const selection = { ...given, state };
    if (watch && (format === 'yaml' || format === 'name'))
      throw new CommandError(`"-o ${format}" cannot be watched. Give "-o json", or leave it out`, {
        exitCode: ExitCode.Usage,
      });
    if (watch) return await watchListing(() => look(selection), format as Layout | 'json');
    const listing = await look(selection);
    const { inventory, rows } = listing;
    if (format === 'json' || format === 'yaml') await printStructured(format, structured(listing));
    else {
      warnOf(inventory);
      if (format === 'name') for (const { attachment } of rows) print(displayName(attachment));
      else printTable(listing, format);
    }
    if (inventory.problems.length > 0 || rows.some(({ state }) => isBad(state.kind)))
      process.exitCode = ExitCode.Failure;
  },
};

/** Looks at the host. */
async function look({ network, pod, state }: Selection): Promise<Listing> {
  const once = lookOnce();
  const inventory = await takeInventory(configDir(), cacheDir(), once);
  for (const name of network ?? []) requireNetwork(inventory, name);
  const named = new Set(pod?.flatMap((name) => findNamed(inventory.attachments, name)));
  const chosen = inventory.attachments.filter(
    (one) => (!network || network.includes(one.network)) && (!pod || named.has(one)),
  );
  const states = await checkStates(chosen, inventory, environment(), once);
  const gone = new Set(chosen.filter((one) => !states.has(one)));
  inventory.attachments = inventory.attachments.filter((one) => !gone.has(one));
  // The states are in the order in which the checks ended.
  const rows = chosen
    .flatMap((attachment) => {
      const seen = states.get(attachment);
      return seen ? [{ attachment, state: seen }] : [];
    })
    .filter((row) => !state || state.includes(row.state.kind))
    .sort((a, b) => order.compare(displayName(a.attachment), displayName(b.attachment)));
  return { inventory, rows };
}

/** Sorts "web-10" after "web-9". */
const order = new Intl.Collator('en', { numeric: true });

/** @throws CommandError for a name that no network on the host has. */
function requireNetwork({ networks, attachments }: Inventory, name: string): void {
  if (networks.some((one) => one.name === name) || attachments.some((one) => one.network === name)) return;
  throw new CommandError(
    `No network is called "${name}". See "cni network ls" for those of this host, or set NETCONFPATH to another directory`,
  );
}

/** The listing for programs. */
function structured({ inventory: { ranges, problems }, rows }: Listing): object {
  const attachments = rows.map(({ attachment, state }) => checkedAttachment(attachment, state));
  return { attachments, ranges: ranges.map(printedRange), problems };
}

function warnOf({ ranges, problems, hidden }: Inventory): void {
  for (const text of [...problems, ...hidden.map(({ message }) => message)]) warn(text);
  for (const { network, range, used } of ranges.filter(isFull))
    warn(
      `Network "${network}" has given away all ${used} addresses of ${range}, so that the next ADD fails. ` +
        `Run "cni gc ${network}", or make the range larger`,
    );
}

function printTable({ inventory, rows }: Listing, layout: Layout): void {
  const [heading, ...lines] = formatListing(rows, layout, process.stdout.columns);
  if (rows.length > 0) print([paint('bold', heading!.text), ...lines.map(colored), ''].join('\n'));
  print(summary(rows, inventory.attachments.length));
}

/** Red for what is not in order. */
function colored({ text, state }: { text: string; state?: State | undefined }): string {
  return state && isBad(state.kind) ? paint('red', text) : text;
}

/** "3 of 8 attachments, 1 broken, 2 orphaned." @param all how many there are on the host. */
function summary(rows: readonly Row[], all: number): string {
  const number = (kind: State['kind']) => rows.filter(({ state }) => state.kind === kind).length;
  const others = (['broken', 'orphaned', 'unchecked'] as const)
    .filter((kind) => number(kind) > 0)
    .map((kind) => `${number(kind)} ${kind}`);
  const shown = rows.length === all ? '' : `${rows.length} of `;
  const good = rows.length === 0 ? [] : ['all ok'];
  return `${[`${shown}${count(all, 'attachment')}`, ...(others.length > 0 ? others : good)].join(', ')}.`;
}
