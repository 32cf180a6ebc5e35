/**
 * Deleting interfaces of the host together. The kernel waits for all processors when it deletes interfaces,
 * once per message: a message for a group of interfaces takes no longer than one for a single interface.
 * Sources: rtnetlink(7), linux/if_link.h (IFLA_GROUP).
 */

import { attributes, layout } from '../netlink/attributes.ts';
import { isKernelError } from '../netlink/libc.ts';
import type { Request } from '../netlink/message.ts';
import { u32 } from '../netlink/struct.ts';
import { NetlinkGroup, waitForEvent } from './events.ts';
import {
  deleteLink,
  encodeLink,
  getLink,
  type Link,
  LinkMessage,
  linkHeader,
  linkLayout,
  setLink,
} from './link.ts';
import { netnsIdOf } from './netns-id.ts';
import { openRouteSocket, type RouteSocket } from './route-socket.ts';
import type { Sandbox } from './sandbox.ts';

/** Decodes only the group: with a thousand interfaces, decoding the other attributes would take long. */
const groupLayout = layout(linkHeader, attributes({ group: [27, u32] }));
/** RTEXT_FILTER_SKIP_STATS: counters are a third of what the kernel sends. */
const skipStatistics = 8;

/** Some distributions give names to groups below this, and people choose them by hand. */
const lowestGroup = 0x10000;

/**
 * How long to watch whether an interface is gone; after that, only the end of its deletion counts. In
 * milliseconds.
 */
const patienceMs = 10_000;

/** An interface of the host. */
export interface HostLink {
  readonly index: number;
  readonly name: string;
}

/**
 * The other end of a veth pair, if it is in the namespace of this process.
 * @param link the end in the sandbox.
 */
export function peerOnHost({ socket }: Sandbox, link: Link): HostLink | undefined {
  const { kind, parent, parentNetnsId } = link;
  if (kind !== 'veth' || !parent || parentNetnsId === undefined) return undefined;
  const isOfHost = netnsIdOf(socket, process.pid) === parentNetnsId;
  return isOfHost ? { index: parent, name: `peer of ${link.name}` } : undefined;
}

/**
 * Deletes interfaces. Those that are already gone are no error. The socket must not be used meanwhile.
 * @param host socket of the namespace that they are in.
 * @throws KernelError, after which some may be left.
 */
export async function deleteHostLinks(host: RouteSocket, links: readonly HostLink[]): Promise<void> {
  if (links.length === 0) return;
  try {
    await host.executeInThreadPool(
      links.length === 1 ? deleteLink(links[0]!.index, links[0]!.name) : gather(host, links),
    );
  } catch (error) {
    if (!isKernelError(error, 'ENODEV')) throw error;
  }
}

/**
 * Deletes an interface, and returns as soon as it is gone. The kernel holds up whoever deletes an interface
 * for some 25 ms longer; here, a thread of the pool waits for that, while the process goes on with other
 * things.
 * @param host socket of the process's own namespace. The thread keeps that one alive; any other namespace
 *   could be removed meanwhile, and Linux 6.18 crashes when a namespace is removed that an interface is still
 *   leaving.
 * @throws KernelError
 */
export async function deleteLinkInBackground(host: RouteSocket, link: HostLink): Promise<void> {
  let hasEnded = false;
  const deletion = (async () => {
    using socket = openRouteSocket();
    await deleteHostLinks(socket, [link]);
  })().finally(() => {
    hasEnded = true;
  });
  const goesAway = waitForEvent(NetlinkGroup.Link, patienceMs, () => hasEnded || !getLink(host, link.index));
  await Promise.race([deletion, goesAway.then((hasGone) => (hasGone && !hasEnded ? undefined : deletion))]);
}

/** Puts interfaces into a group that nobody else uses. @returns the request that deletes it. */
function gather(host: RouteSocket, links: readonly HostLink[]): Request {
  const used = listGroups(host);
  let group: number;
  do {
    group = lowestGroup + Math.floor(Math.random() * (2 ** 32 - lowestGroup));
  } while (used.has(group));
  for (const outcome of host.attempt(...links.map(({ index, name }) => setLink(index, { group }, name))))
    if (outcome instanceof Error && !isKernelError(outcome, 'ENODEV')) throw outcome;
  return {
    action: `delete the interfaces of group ${group}`,
    type: LinkMessage.Delete,
    flags: 0,
    payload: encodeLink(0, { group }),
  };
}

/** The groups that interfaces of the namespace are in. */
function listGroups(socket: RouteSocket): Set<number> {
  const payload = linkLayout.encode({}, { extended: skipStatistics });
  const groups = new Set<number>();
  socket.search({ action: 'list interfaces', type: LinkMessage.Get, flags: 0, payload }, (data, from, to) => {
    groups.add(groupLayout.decode(data.subarray(from, to)).group ?? 0);
  });
  return groups;
}
