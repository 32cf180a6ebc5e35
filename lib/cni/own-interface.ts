/**
 * Telling an attachment's interface from another pod's. By the time of DEL, the path of the sandbox may be
 * another pod's, say because the runtime reused it after a DEL was lost; that pod's interface has the same
 * name.
 */

import { attachmentKey } from '../attachment.ts';
import type { Address } from '../ip.ts';
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
 * Finds an attachment's interface.
 * @returns undefined when the sandbox or the interface is gone, or belongs to another pod by now.
 */
export function findOwnInterface(call: Call): OwnInterface | undefined {
  const found = findInterface(call);
  return found && isOwn(call, found) ? found : undefined;
}

/** As {@link findOwnInterface}, for DEL, which warns of an interface that it leaves. */
export function findInterfaceToRemove(call: Call): OwnInterface | undefined {
  const found = findInterface(call);
  if (!found || isOwn(call, found)) return found;
  call.warn(
    `Interface "${call.ifname}" in "${call.netns}" does not look like this attachment's, and is left to the pod that it seems to belong to`,
  );
  return undefined;
}

function findInterface({ sandboxIfPresent: sandbox, ifname }: Call): OwnInterface | undefined {
  const link = sandbox && getLink(sandbox.socket, ifname);
  return link && { sandbox, link };
}

/**
 * The sandbox whose settings DEL is to undo.
 * @returns undefined when it is gone, or when the interface in it is another pod's.
 */
export function findOwnSandbox(call: Call): Sandbox | undefined {
  const found = findInterface(call);
  return found && !isOwn(call, found) ? undefined : call.sandboxIfPresent;
}

/**
 * Addresses decide first, as a MAC address may be the parent's or the device's own, or may have been set to
 * the same value again. An interface without addresses, as in a layer 2 network, is recognized by its MAC
 * address. That may have changed, say because DEL of a later plugin restored it: then libcni's cache decides.
 * So it does where a program in the container has changed the addresses, but not the MAC address.
 */
function isOwn(call: Call, { sandbox: { socket }, link }: OwnInterface): boolean {
  const { ifname, prevResult } = call;
  const known = knownAddresses(call).map(({ address }) => address);
  const present = addressesOf(socket, link).filter(
    (address) => !address.isLinkLocal && known.some(({ family }) => family === address.family),
  );
  if (present.some((one) => known.some((other) => other.equals(one)))) return true;
  if (present.length > 0) return ownerInCache(call, link) === 'this';
  const mac = prevResult?.interfaces.find((one) => one.name === ifname && one.sandbox)?.mac;
  if (mac === link.mac) return true;
  return (!mac || known.length === 0) && !isOfOther(call, link);
}

/** None for an interface that has just disappeared, as the DEL of another call may remove it. */
function addressesOf(socket: RouteSocket, { index }: Link): Address[] {
  try {
    return listAddresses(socket, index).map(({ prefix }) => prefix.address);
  } catch (error) {
    if (!isKernelError(error, 'ENODEV')) throw error;
    return [];
  }
}

/** Whether libcni's cache has the interface as another attachment's. */
export function isOfOther(call: Call, link: Link): boolean {
  return ownerInCache(call, link) === 'other';
}

/** Whose the interface is according to libcni's cache, whose file names end in the interface's name. */
function ownerInCache({ attachment, netns }: Call, link: Link): 'this' | 'other' | undefined {
  const own = attachmentKey(attachment);
  let owner: 'this' | undefined;
  for (const one of cachedResults((name) => name.endsWith(`-${link.name}`))) {
    const hasIt = one.interfaces.some(
      ({ name, mac, sandbox }) =>
        name === link.name && sandbox === netns && `${mac ?? ''}`.toLowerCase() === link.mac,
    );
    if (!hasIt) continue;
    if (attachmentKey(one) !== own) return 'other';
    owner = 'this';
  }
  return owner;
}
