/** `cni list --watch`: what changes, as it changes. */

import { setTimeout as sleep } from 'node:timers/promises';
import { attachmentKey } from '../../lib/attachment.ts';
import { NetlinkGroup } from '../../lib/kernel/events.ts';
import { NetlinkProtocol, NetlinkSocket } from '../../lib/netlink/socket.ts';
import { displayName, type HostAttachment } from '../inventory.ts';
import { checkedAttachment } from '../printed.ts';
import { isBad, type State } from '../state.ts';
import { paint, print, redraw, warn } from '../terminal.ts';
import { describeState, formatListing, type Layout } from './table.ts';

/** What a look at the host shows. */
interface Seen {
  readonly inventory: { readonly problems: readonly string[] };
  readonly rows: readonly { attachment: HostAttachment; state: State }[];
}

/** How often the host is looked at when its own kernel reports no change, in milliseconds. */
const silenceMs = 2000;
/** How often the kernel is asked for reports, in milliseconds. */
const pollMs = 100;

/**
 * Shows the attachments until Ctrl-C: on a terminal the whole list each time, elsewhere a line for each one
 * that is added, changes or is removed.
 * @param look looks at the host.
 */
export async function watchListing(look: () => Promise<Seen>, layout: Layout | 'json'): Promise<void> {
  let isStopped = false;
  for (const signal of ['SIGINT', 'SIGTERM'] as const)
    process.once(signal, () => {
      isStopped = true;
    });
  const show =
    process.stdout.isTTY && layout !== 'json'
      ? screen(layout)
      : changes(layout === 'json' ? inJson : inLines);
  using events = new NetlinkSocket(NetlinkProtocol.Route, { groups: NetlinkGroup.Link });
  while (!isStopped) {
    events.drain();
    show(await look());
    const end = performance.now() + silenceMs;
    while (!isStopped && performance.now() < end && !events.drain()) await sleep(pollMs);
  }
}

/** Draws the list over the previous one, as far as it fits. */
function screen(layout: Layout): (seen: Seen) => void {
  return ({ inventory, rows }) => {
    const [heading, ...lines] = formatListing(rows, layout, process.stdout.columns);
    const painted = lines.flatMap(({ text, state }) =>
      text.split('\n').map((line) => (state && isBad(state.kind) ? paint('red', line) : line)),
    );
    const room = Math.max(1, (process.stdout.rows || 24) - 3 - inventory.problems.length);
    const more = painted.length - room;
    const time = new Date().toTimeString().slice(0, 8);
    redraw(
      [
        paint('bold', heading!.text),
        ...painted.slice(0, room),
        ...inventory.problems.map((problem) => paint('yellow', problem)),
        `${time}${more > 0 ? `, ${more} more lines` : ''}. Ctrl-C ends this.`,
      ].join('\n'),
    );
  };
}

/** What happened to an attachment since the last look. */
type Change = 'added' | 'changed' | 'removed';

/** Prints changes. */
interface Teller {
  tellChange(change: Change, row: Seen['rows'][number]): void;
  /** @param problems all files that cannot be read now. */
  tellProblems(problems: readonly string[]): void;
}

/** Prints what differs from the previous look. */
function changes({ tellChange, tellProblems }: Teller): (seen: Seen) => void {
  let before = new Map<string, { text: string; row: Seen['rows'][number] }>();
  let problems = '[]';
  return ({ inventory, rows }) => {
    if (JSON.stringify(inventory.problems) !== problems) tellProblems(inventory.problems);
    problems = JSON.stringify(inventory.problems);
    const now = new Map(
      rows.map((row) => [attachmentKey(row.attachment), { text: JSON.stringify(row), row }]),
    );
    for (const [key, { text, row }] of now) {
      const known = before.get(key);
      if (known?.text !== text) tellChange(known ? 'changed' : 'added', row);
    }
    for (const [key, { row }] of before) if (!now.has(key)) tellChange('removed', row);
    before = now;
  };
}

const inJson: Teller = {
  tellChange: (change, { attachment, state }) =>
    print(JSON.stringify({ change, attachment: checkedAttachment(attachment, state) })),
  tellProblems: (problems) => print(JSON.stringify({ problems })),
};

const inLines: Teller = {
  tellChange: (change, { attachment, state }) => {
    const { network, ifname, ips } = attachment;
    const cells = [displayName(attachment), network, ifname, ips.join(' ') || '-', describeState(state)];
    print([change, ...cells].join('  '));
  },
  tellProblems: (problems) => problems.forEach(warn),
};
