/**
 * The intermediate interfaces (ifb) by which containers send: only what leaves an interface can be shaped, so
 * what comes in from a container is sent out by one of these. Their names are the reference plugin's.
 */

import type { AttachmentId } from '../../lib/attachment.ts';
import type { Call, UndoStep } from '../../lib/cni/call.ts';
import { hashName } from '../../lib/firewall/names.ts';
import { createLink, getLink, type Link, listLinks, requireLink, setLink } from '../../lib/kernel/link.ts';
import { deleteHostLinks } from '../../lib/kernel/link-group.ts';
import type { RouteSocket } from '../../lib/kernel/route-socket.ts';
import { ingressRedirections } from '../../lib/kernel/traffic-control.ts';
import { findUnused } from '../../lib/kernel/unused.ts';

const namePrefix = 'bwp';
const nameLength = 15;
/** IFALIASZ minus the final NUL. */
const aliasLength = 255;

/** Where interfaces are created, and who is told how to delete them once they exist. */
export interface IfbOwner {
  readonly host: RouteSocket;
  undo(what: string, step: UndoStep): void;
}

/** Of a call, what tells which interface is its attachment's. */
export type IfbUser = Pick<Call, 'host' | 'attachment' | 'prevResult' | 'sandboxIfPresent' | 'ifname'>;

/**
 * The names that an attachment's interface can have. The first is the reference plugin's, which does not
 * allow for a container with two attachments to the same network; the second attachment takes the other.
 */
function namesOf({ network, containerId, ifname }: AttachmentId): [usual: string, other: string] {
  return [
    hashName(nameLength, namePrefix, network + containerId),
    hashName(nameLength, namePrefix, `${network}/${containerId}/${ifname}`),
  ];
}

/** Says which attachment an interface belongs to. The reference plugin's interfaces have no alias. */
function aliasOf({ network, containerId, ifname }: AttachmentId): string {
  return `${network}/${containerId}/${ifname}`.slice(0, aliasLength);
}

/** Refuses an attachment that already has an interface, as on a second ADD. */
export function refuseExistingIfb(call: IfbUser): void {
  const existing = findIfb(call);
  if (existing)
    throw new Error(
      `Interface "${existing.name}" already limits what this attachment sends. Run DEL before ADD is tried again`,
    );
}

/** Creates an attachment's interface. @param mtu in bytes. */
export function createIfb(owner: IfbOwner, attachment: AttachmentId, mtu: number): Link {
  const { host } = owner;
  const [usual, other] = namesOf(attachment);
  const name = getLink(host, usual) ? other : usual;
  host.execute(createLink({ kind: 'ifb' }, { name, mtu, txQueueLength: 0, up: true }));
  owner.undo(`delete interface "${name}"`, () => deleteHostLinks(host, [{ index: 0, name }]));
  const link = requireLink(host, name);
  // The kernel ignores an alias at creation.
  host.execute(setLink(link.index, { alias: aliasOf(attachment) }, name));
  return link;
}

/** Finds an attachment's interface, whichever suite created it. */
export function findIfb(call: IfbUser): Link | undefined {
  const alias = aliasOf(call.attachment);
  return namesOf(call.attachment)
    .flatMap((name) => getLink(call.host, name) ?? [])
    .find(
      (link) => link.kind === 'ifb' && (link.alias === alias || (link.alias === '' && isOwn(call, link))),
    );
}

/**
 * Whether an interface without alias is this attachment's. The reference plugin gives those of all
 * attachments of a container to a network one name, so it can be another one's, which sends by it. Without a
 * sandbox, all of these are going.
 */
function isOwn({ host, prevResult, sandboxIfPresent: sandbox, ifname }: IfbUser, ifb: Link): boolean {
  if (prevResult?.interfaces.some((one) => one.name === ifb.name && !one.sandbox)) return true;
  if (!sandbox) return true;
  const hostEnd = getLink(sandbox.socket, ifname)?.parent;
  return redirections(host).every(({ from, to }) => to !== ifb.index || from === hostEnd);
}

/**
 * Deletes the interfaces of a network's attachments other than those given, and those that nobody can be
 * using: an ADD that was killed before it could set the alias leaves one without. So does the reference
 * plugin, but then something is redirected to it.
 */
export async function collectIfbs(
  socket: RouteSocket,
  network: string,
  valid: readonly AttachmentId[],
): Promise<void> {
  const keep = new Set(valid.map(aliasOf));
  const stale = listIfbs(socket).filter(({ alias }) => alias.startsWith(`${network}/`) && !keep.has(alias));
  await deleteHostLinks(socket, stale);

  const names = new Set(valid.flatMap(namesOf));
  const look = () => unusedIfbs(socket).filter(({ name }) => !names.has(name));
  await deleteHostLinks(socket, await findUnused(look, ({ index }) => index));
}

/** Interfaces without alias to which nothing is redirected. */
function unusedIfbs(socket: RouteSocket): Link[] {
  const anonymous = listIfbs(socket).filter(({ alias }) => alias === '');
  if (anonymous.length === 0) return [];
  const used = new Set(redirections(socket).map(({ to }) => to));
  return anonymous.filter(({ index }) => !used.has(index));
}

/** What is redirected as it comes in by an interface, and where to: indices of interfaces. */
function redirections(socket: RouteSocket): { from: number; to: number }[] {
  return listLinks(socket).flatMap(({ index: from }) =>
    ingressRedirections(socket, from).map(({ to }) => ({ from, to })),
  );
}

function listIfbs(socket: RouteSocket): Link[] {
  return listLinks(socket).filter(({ kind, name }) => kind === 'ifb' && name.startsWith(namePrefix));
}
