/**
 * Telling an attachment's interface from another pod's. By the time of DEL, the path of the sandbox may be
 * another pod's, say because the runtime reused it after a DEL was lost; that pod's interface has the same
 * name.
 */

import { attachmentKey } from '../attachment.ts';
import type { Prefix } from '../ip.ts';
import { listAddresses } from '../kernel/address.ts';
import { getLink, type Link } from '../kernel/link.ts';
import type { RouteSocket } from '../kernel/route-socket.ts';
import type { Sandbox } from '../kernel/sandbox.ts';
import { isKernelError } from '../netlink/libc.ts';
import { cachedResults } from '../result-cache.ts';
import type { Call } from './call.ts';
import { knownAddresses } from './interface.ts';

/** An attachment's interface, and the sandbox that it is in. */
export interface OwnInterface {
  readonly sandbox: Sandbox;
  readonly link: Link;
}

/**
 * Finds the interface that DEL is to remove.
 * @returns undefined when the sandbox or the interface is gone, or belongs to another pod by now.
 */
export function findOwnInterface(call: Call): OwnInterface | undefined {
  const { sandboxIfPresent: sandbox } = call;
  const link = sandbox && getLink(sandbox.socket, call.ifname);
  return link && isOwn(call, sandbox, link) ? { sandbox, link } : undefined;
}

/**
 * The sandbox whose settings DEL is to undo.
 * @returns undefined when it is gone, or when the interface in it is another pod's.
 */
export function findOwnSandbox(call: Call): Sandbox | undefined {
  const { sandboxIfPresent: sandbox } = call;
  const link = sandbox && getLink(sandbox.socket, call.ifname);
  return link && !isOwn(call, sandbox, link) ? undefined : sandbox;
}

/**
 * Addresses decide first, as a MAC address may be the parent's or the device's own, or may have been set to
 * the same value again. An interface without addresses, as in a layer 2 network, is recognized by its MAC
 * address. That may have changed, say because DEL of a later plugin restored it: then libcni's cache decides.
 */
function isOwn(call: Call, { socket }: Sandbox, link: Link): boolean {
  const { ifname, prevResult } = call;
  const known = knownAddresses(call);
  const present = addressesOf(socket, link).filter(
    ({ address, family }) => !address.isLinkLocal && known.some((one) => one.family === family),
  );
  if (present.length > 0) return present.some((one) => known.some((other) => other.equals(one)));
  const mac = prevResult?.interfaces.find((one) => one.name === ifname && one.sandbox)?.mac;
  if (mac === link.mac) return true;
  return (!mac || known.length === 0) && !isOfOther(call, link);
}

/** None for an interface that has just disappeared, as the DEL of another call may remove it. */
function addressesOf(socket: RouteSocket, { index }: Link): Prefix[] {
  try {
    return listAddresses(socket, index).map(({ prefix }) => prefix);
  } catch (error) {
    if (!isKernelError(error, 'ENODEV')) throw error;
    return [];
  }
}

/** Whether libcni's cache, whose file names end in the interface's name, lists it for another attachment. */
export function isOfOther({ attachment, netns }: Call, link: Link): boolean {
  const own = attachmentKey(attachment);
  for (const one of cachedResults((name) => name.endsWith(`-${link.name}`)))
    for (const { name, mac, sandbox } of attachmentKey(one) === own ? [] : one.interfaces)
      if (name === link.name && sandbox === netns && `${mac}`.toLowerCase() === link.mac) return true;
  return false;
}
