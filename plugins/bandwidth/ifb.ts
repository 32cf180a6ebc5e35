/**
 * The intermediate interfaces by which containers send: only what leaves an interface can be shaped, so what comes in
 * from a container is sent out by one of these. Their names are the reference plugin's.
 */

import type { AttachmentId } from '../../lib/attachment.ts';
import { hashName } from '../../lib/firewall/names.ts';
import {
  createLink,
  deleteLink,
  getLink,
  type Link,
  listLinks,
  requireLink,
  setLink,
} from '../../lib/kernel/link.ts';
import type { RouteSocket } from '../../lib/kernel/route-socket.ts';
import { isKernelError } from '../../lib/netlink/libc.ts';

const namePrefix = 'bwp';
const nameLength = 15;
/** IFALIASZ less the final NUL. */
const aliasLength = 255;

/**
 * The names that an attachment's interface can have. The first is the reference plugin's, which forgets that a container may be
 * attached to a network twice; the second attachment then takes the other.
 */
function namesOf({ network, containerId, ifname }: AttachmentId): [usual: string, other: string] {
  return [
    hashName(nameLength, namePrefix, network + containerId),
    hashName(nameLength, namePrefix, `${network}/${containerId}/${ifname}`),
  ];
}

/** Says whose an interface is. The reference plugin's have no alias. */
function aliasOf({ network, containerId, ifname }: AttachmentId): string {
  return `${network}/${containerId}/${ifname}`.slice(0, aliasLength);
}

/** Makes an attachment's interface. @param mtu in bytes. @throws Error when it has one already. */
export function createIfb(socket: RouteSocket, attachment: AttachmentId, mtu: number): Link {
  const existing = findIfb(socket, attachment);
  if (existing)
    throw new Error(
      `Interface "${existing.name}" shapes this attachment already. Run DEL for it before ADD is tried again`,
    );
  const [usual, other] = namesOf(attachment);
  const name = getLink(socket, usual) ? other : usual;
  socket.execute(createLink({ kind: 'ifb' }, { name, mtu, txQueueLength: 0, up: true }));
  const link = requireLink(socket, name);
  // The kernel overlooks an alias at creation.
  socket.execute(setLink(link.index, { alias: aliasOf(attachment) }, name));
  return link;
}

/** Finds an attachment's interface, whichever suite made it. */
export function findIfb(socket: RouteSocket, attachment: AttachmentId): Link | undefined {
  const links = namesOf(attachment).map((name) => getLink(socket, name));
  return links.find((link) => link?.kind === 'ifb' && ['', aliasOf(attachment)].includes(link.alias));
}

/** Deletes an interface that {@link findIfb} or {@link staleIfbs} found. */
export function deleteIfb(socket: RouteSocket, { index, name }: Link): void {
  try {
    socket.execute(deleteLink(index, name));
  } catch (error) {
    if (!isKernelError(error, 'ENODEV')) throw error;
  }
}

/** Interfaces of a network's attachments other than those given. */
export function staleIfbs(socket: RouteSocket, network: string, valid: readonly AttachmentId[]): Link[] {
  const keep = new Set(valid.map(aliasOf));
  return listLinks(socket).filter(
    ({ kind, name, alias }) =>
      kind === 'ifb' && name.startsWith(namePrefix) && alias.startsWith(`${network}/`) && !keep.has(alias),
  );
}
