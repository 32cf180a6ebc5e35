/** `cni list`: every attachment of the host. */

import type { CommandModule } from 'yargs';
import { displayName, type HostAttachment, takeInventory } from './inventory.ts';
import { isFull } from './reservations.ts';
import { cacheDir, configDir, environment } from './settings.ts';
import { checkStates, type State } from './state.ts';
import { count, formatTable, paint, print, warn } from './terminal.ts';

interface ListArguments {
  json: boolean;
  orphaned: boolean;
}

export const list: CommandModule<object, ListArguments> = {
  command: 'list',
  describe: 'List the attachments of this host',
  builder: (yargs) =>
    yargs
      .option('orphaned', {
        type: 'boolean',
        default: false,
        describe: 'Only what no longer belongs to a container',
      })
      .option('json', { type: 'boolean', default: false, describe: 'Print the list as JSON' })
      .example('$0 list', 'Which pod has which address')
      .example('$0 list --orphaned', 'What "cni gc" would collect')
      .epilogue(
        'It is composed of the result cache, the reservations of host-local, the rules of the firewall and the kernel.',
      ),
  handler: async ({ json, orphaned }) => {
    const inventory = await takeInventory(configDir(), cacheDir());
    const { attachments, ranges, problems } = inventory;
    const shown = attachments.filter((one) => !orphaned || one.orphaned.length > 0);
    const states = await checkStates(shown, inventory, environment());
    if (json) {
      const listed = shown.map((one) => ({ ...one, state: states.get(one) }));
      return print(JSON.stringify({ attachments: listed, ranges, problems }, null, 2));
    }
    for (const problem of problems) warn(problem);
    for (const { network, range, used } of ranges.filter(isFull))
      warn(
        `Network "${network}" has given away all ${used} addresses of ${range}, so that the next ADD fails. ` +
          `Run "cni gc ${network}", or make the range larger`,
      );
    const [heading, ...rows] = formatTable(
      ['CONTAINER', 'NETWORK', 'INTERFACE', 'ADDRESSES', 'PORTS', 'AGE', 'STATE'],
      shown.map((one) => rowOf(one, states.get(one)!)),
    );
    if (rows.length > 0)
      print(
        [
          paint('bold', heading!),
          ...rows.map((row, i) =>
            ['broken', 'orphaned'].includes(states.get(shown[i]!)!.kind) ? paint('red', row) : row,
          ),
          '',
        ].join('\n'),
      );
    const orphans = attachments.filter((one) => one.orphaned.length > 0).length;
    print(`${count(attachments.length, 'attachment')}, ${orphans} orphaned.`);
  },
};

function rowOf(one: HostAttachment, { kind, problems }: State): string[] {
  return [
    displayName(one),
    one.network,
    one.ifname,
    one.ips.join(' ') || '-',
    formatPorts(one) || '-',
    one.since ? formatAge(Date.now() - one.since.getTime()) : '-',
    kind === 'orphaned' ? problems.join('; ') : [kind, ...problems].join(': '),
  ];
}

/** "8080:80/tcp 8443:443/tcp" */
export function formatPorts({ ports }: HostAttachment): string {
  return ports
    .map(({ hostPort, containerPort, protocol }) => `${hostPort}:${containerPort}/${protocol}`)
    .join(' ');
}

/** As kubectl writes ages: the largest unit that fits. @param milliseconds */
function formatAge(milliseconds: number): string {
  const seconds = Math.max(0, Math.floor(milliseconds / 1000));
  for (const [unit, size] of [
    ['d', 86_400],
    ['h', 3600],
    ['m', 60],
  ] as const)
    if (seconds >= size) return `${Math.floor(seconds / size)}${unit}`;
  return `${seconds}s`;
}
