/** What is known of attachments whose sandboxes exist, and of the interfaces that they use. */

import { attachmentKey } from '../../lib/attachment.ts';
import { parseResult, type Result } from '../../lib/cni/result.ts';
import type { Family } from '../../lib/ip.ts';
import type { Link } from '../../lib/kernel/link.ts';
import { listRoutes, RouteTable } from '../../lib/kernel/route.ts';
import { openRouteSocket } from '../../lib/kernel/route-socket.ts';
import { displayName, type HostAttachment, type Inventory } from '../inventory.ts';
import type { CachedAttachment } from '../libcni/cache.ts';
import { type NetworkList, networkFromCache } from '../libcni/conflist.ts';

/** An attachment whose sandbox exists. */
export interface RunningAttachment {
  readonly attachment: HostAttachment;
  /** For messages. */
  readonly name: string;
  readonly record: CachedAttachment | undefined;
  /** As it was when ADD was done; undefined when that was not recorded. */
  readonly network: NetworkList | undefined;
  readonly result: Result | undefined;
}

/** The attachments whose sandboxes exist. */
export function runningAttachments(inventory: Inventory): RunningAttachment[] {
  return inventory.attachments
    .filter(({ orphaned }) => orphaned.length === 0)
    .map((one) => runningAttachment(one, inventory));
}

function runningAttachment(attachment: HostAttachment, { records }: Inventory): RunningAttachment {
  const record = records.get(attachmentKey(attachment));
  return {
    attachment,
    name: displayName(attachment),
    record,
    network: record && networkFromCache(record),
    result: record && resultOf(record),
  };
}

function resultOf({ result }: CachedAttachment): Result | undefined {
  try {
    return result && parseResult(result, typeof result.cniVersion === 'string' ? result.cniVersion : '');
  } catch {
    return undefined;
  }
}

/** The interfaces that default routes of a family lead to. */
export function uplinksOf(family: Family, links: readonly Link[]): Link[] {
  using socket = openRouteSocket();
  const indexes = listRoutes(socket, { family, table: RouteTable.Main })
    .filter(({ dst }) => dst.length === 0)
    .flatMap(({ link, hops }) => [link, ...hops.map((hop) => hop.link)]);
  return links.filter(({ index }) => indexes.includes(index));
}

/** Whether the host forwards an attachment's packets, rather than only a bridge or a parent. */
export function isRouted({ network }: RunningAttachment): boolean {
  return (network?.plugins ?? []).some(
    ({ type, config }) =>
      type === 'ptp' ||
      type === 'flannel' ||
      (type === 'bridge' && Boolean(config.isGateway || config.isDefaultGateway || config.ipMasq)),
  );
}

/** The host interface by which an attachment's packets come in: its bridge, or its own veth. */
export function ingressOf({ attachment }: RunningAttachment, links: readonly Link[]): Link | undefined {
  const own = links.filter(({ name }) => attachment.hostInterfaces.includes(name));
  return own.find(({ kind }) => kind === 'bridge') ?? own[0];
}

/** Whether an attachment has addresses of a family. */
export function hasFamily({ attachment }: RunningAttachment, family: Family): boolean {
  return attachment.ips.some((ip) => ip.includes(':') === (family === 6));
}
