/**
 * Telling an attachment's interface from that of another pod. The path of a sandbox may be another pod's by
 * the time of DEL, as when a runtime uses it again after a DEL was lost: that one's interface bears the same
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
 * Finds the interface that DEL is to take away.
 * @returns undefined when the sandbox or the interface is gone, or another pod's by now.
 */
export function findOwnInterface(call: Call): OwnInterface | undefined {
  const { sandboxIfPresent: sandbox } = call;
  const link = sandbox && getLink(sandbox.socket, call.ifname);
  return link && isOwn(call, sandbox, link) ? { sandbox, link } : undefined;
}

/**
 * The sandbox whose settings DEL is to take back.
 * @returns undefined when it is gone, or when the interface in it is another pod's.
 */
export function findOwnSandbox(call: Call): Sandbox | undefined {
  const { sandboxIfPresent: sandbox } = call;
  const link = sandbox && getLink(sandbox.socket, call.ifname);
  return link && !isOwn(call, sandbox, link) ? undefined : sandbox;
}

/**
 * Addresses tell first, as a MAC address may be the one of the parent or of the device, or be set to the same
 * one again. An interface without any, as in a network of layer 2, is known by its MAC address. That may have
 * changed, as when DEL of a later plugin has put it back: then libcni's cache tells.
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

/** None for an interface that has gone just now, as the DEL of another call may take it away. */
function addressesOf(socket: RouteSocket, { index }: Link): Prefix[] {
  try {
    return listAddresses(socket, index).map(({ prefix }) => prefix);
  } catch (error) {
    if (!isKernelError(error, 'ENODEV')) throw error;
    return [];
  }
}

/** Whether libcni's cache, whose files end in the interface's name, has it as that of another attachment. */
export function isOfOther({ attachment, netns }: Call, link: Link): boolean {
  const own = attachmentKey(attachment);
  for (const one of cachedResults((name) => name.endsWith(`-${link.name}`)))
    for (const { name, mac, sandbox } of attachmentKey(one) === own ? [] : one.interfaces)
      if (name === link.name && sandbox === netns && `${mac}`.toLowerCase() === link.mac) return true;
  return false;
}
