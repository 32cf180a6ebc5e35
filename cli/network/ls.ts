/** `cni network ls`: the networks of the host, and how many addresses each has left. */

import { basename } from 'node:path';
import type { Suite } from '../../main.ts';
import { ExitCode } from '../errors.ts';
import { withFormat } from '../format.ts';
import type { Subcommand } from '../subcommand.ts';
import { count, formatBlocks, formatTable, paint, print, printStructured, warn } from '../terminal.ts';
import { type NetworkOverview, takeOverview } from './overview.ts';

const heading = ['NETWORK', 'PLUGINS', 'SUBNET', 'GATEWAY', 'SIZE', 'USED', 'FREE', 'PODS', 'FILE'];

/** The subcommand. @param suite whose schemas the configurations are checked against. */
export function ls(suite: Suite): Subcommand<{ format: 'table' | 'json' | 'yaml' | 'name' }> {
  return {
    builder: (yargs) =>
      withFormat(yargs, ['table', 'json', 'yaml', 'name'], 'How to print the list')
        .example('$0 network ls', 'How many addresses each network has left')
        .epilogue(
          'A network has a line for each of its address ranges; SIZE is how many addresses it can give away. ' +
            'The exit code is 1 if there is something wrong with a network, or a file cannot be read.',
        ),
    handler: async ({ format }) => {
      const overview = await takeOverview(suite);
      const { networks, problems } = overview;
      if (format === 'json' || format === 'yaml') await printStructured(format, overview);
      else {
        for (const problem of problems) warn(problem);
        if (format === 'name') for (const { name } of networks) print(name);
        else printTable(networks);
      }
      if (problems.length > 0 || networks.some((one) => one.problems.length > 0))
        process.exitCode = ExitCode.Failure;
    },
  };
}

function printTable(networks: readonly NetworkOverview[]): void {
  const rows = networks.flatMap(rowsOf);
  const [first, ...lines] = formatTable(heading, rows);
  const width = process.stdout.columns ?? Number.POSITIVE_INFINITY;
  const isWide = [first!, ...lines].some((line) => line.length > width);
  if (rows.length > 0)
    print(
      [...(isWide ? formatBlocks(heading, rows, width) : [paint('bold', first!), ...lines]), ''].join('\n'),
    );
  for (const { name, problems } of networks)
    for (const problem of problems) print(paint('yellow', `${name}: ${problem}`));
  print(`${count(networks.length, 'network')}.`);
}

function rowsOf({ name, file, delegated, plugins, ipam, ranges, attachments }: NetworkOverview): string[][] {
  const own = [name, plugins.join(',')];
  const shared = [`${attachments.length}`, file ? basename(file) : delegated ? '(delegated)' : '(removed)'];
  if (ranges.length === 0) return [[...own, ipam.join(',') || '-', '-', '-', '-', '-', ...shared]];
  return ranges.map(({ subnets, gateways, capacity, used, free }) => [
    ...own,
    subnets.join(' '),
    gateways.join(' ') || '-',
    formatSize(capacity),
    formatSize(used),
    formatSize(free),
    ...shared,
  ]);
}

/** A number of addresses: in short for IPv6, which has too many to write out, and "?" if it is not known. */
function formatSize(number: number | undefined): string {
  if (number === undefined) return '?';
  return number < 1e7 ? `${number}` : number.toExponential(1).replace('e+', 'e');
}
