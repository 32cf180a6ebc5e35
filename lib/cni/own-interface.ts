/**
 * Telling an attachment's interface from that of another pod. The path of a sandbox may be another pod's by
 * the time of DEL, as when a runtime uses it again after a DEL was lost: that one's interface bears the same
 * name.
 */

import { attachmentKey } from '../attachment.ts';
import { listAddresses } from '../kernel/address.ts';
import { getLink, type Link } from '../kernel/link.ts';
import type { Sandbox } from '../kernel/sandbox.ts';
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
 * An interface has the MAC address of the result, or at least one of its addresses, as whoever is in the pod
 * may have changed the former. Without a result, libcni's cache tells whether another attachment has it.
 */
function isOwn(call: Call, { socket }: Sandbox, link: Link): boolean {
  const { ifname, prevResult } = call;
  const mac = prevResult?.interfaces.find((one) => one.name === ifname && one.sandbox)?.mac;
  if (!mac) return !isOfOther(call, link);
  if (mac.toLowerCase() === link.mac) return true;
  const known = knownAddresses(call);
  return listAddresses(socket, link.index).some(({ prefix }) => known.some((one) => one.equals(prefix)));
}

function isOfOther({ attachment, netns, ifname }: Call, link: Link): boolean {
  const own = attachmentKey(attachment);
  for (const one of cachedResults())
    for (const { name, mac, sandbox } of attachmentKey(one) === own ? [] : one.interfaces)
      if (name === ifname && sandbox === netns && `${mac}`.toLowerCase() === link.mac) return true;
  return false;
}
