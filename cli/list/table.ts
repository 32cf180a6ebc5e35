/** The table of `cni list`. */

import { givenName, type HostAttachment } from '../inventory.ts';
import type { State } from '../state.ts';
import { formatBlocks, formatTable } from '../terminal.ts';

/** How the table is laid out: `wide` has more columns. */
export type Layout = 'table' | 'wide';

/** A line of the table, and the state of the attachment it is about. */
interface Line {
  readonly text: string;
  readonly state?: State | undefined;
}

/** How many characters of an ID container engines show; more are shown where two would look the same. */
const shortestId = 12;

/**
 * Lays attachments out in a table or, where that is wider than the terminal, in a block each.
 * @param width of the terminal, in columns; undefined when there is none.
 * @returns the heading, then the lines.
 */
export function formatListing(
  rows: readonly { attachment: HostAttachment; state: State }[],
  layout: Layout,
  width?: number,
): Line[] {
  const ids = shortIds(rows.map(({ attachment }) => attachment.containerId));
  const wide = layout === 'wide';
  const heading = [
    ...['NAME', 'CONTAINER', 'NETWORK', 'INTERFACE', 'ADDRESSES', 'PORTS', 'AGE'],
    ...(wide ? ['NETNS', 'HOST INTERFACES'] : []),
    'STATE',
  ];
  const cells = rows.map(({ attachment: one, state }) => [
    givenName(one) ?? '-',
    wide ? one.containerId : ids.get(one.containerId)!,
    one.network,
    one.ifname,
    one.ips.join(' ') || '-',
    formatPorts(one) || '-',
    one.since ? formatAge(Date.now() - one.since.getTime()) : '-',
    ...(wide ? [one.netns || '-', one.hostInterfaces.join(' ') || '-'] : []),
    describeState(state),
  ]);
  const lines = formatTable(heading, cells);
  if (width === undefined || lines.every((line) => line.length <= width))
    return lines.map((text, i) => ({ text, state: rows[i - 1]?.state }));
  const blocks = formatBlocks(heading, cells, width).map((text, i) => ({ text, state: rows[i]?.state }));
  return [{ text: 'ATTACHMENTS' }, ...blocks];
}

/** "ok", or "broken: …" with the reasons on one line. */
export function describeState({ kind, problems }: State): string {
  return [kind, ...(problems.length > 0 ? [problems.join('; ').replaceAll(/\s*\n\s*/g, '; ')] : [])].join(
    ': ',
  );
}

/** Container IDs, shortened as far as they can still be told apart. */
function shortIds(ids: readonly string[]): Map<string, string> {
  const distinct = [...new Set(ids)];
  let length = shortestId;
  const longest = Math.max(0, ...distinct.map((id) => id.length));
  while (length < longest && new Set(distinct.map((id) => id.slice(0, length))).size < distinct.length)
    length++;
  return new Map(distinct.map((id) => [id, id.slice(0, length)]));
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
