/** Removes the interface of an attachment. */

import { deleteLink, getLink, type Link } from '../kernel/link.ts';
import { deleteHostLinks, peerOnHost } from '../kernel/link-group.ts';
import { openRouteSocket, type RouteSocket } from '../kernel/route-socket.ts';
import { isKernelError, KernelError } from '../netlink/libc.ts';
import type { Call } from './call.ts';
import { findInterfaceToRemove, findOwnInterface } from './own-interface.ts';

/**
 * Deletes the interface from the sandbox, which takes the kernel some 20 ms: other work goes on meanwhile.
 * @returns false when the sandbox or the interface was gone already.
 */
export async function removeInterface(call: Call): Promise<boolean> {
  const own = findInterfaceToRemove(call);
  return own ? await deleteLinkIfPresent(own.sandbox.socket, own.link) : false;
}

/**
 * Deletes a veth pair by its end in the sandbox, together with those of other calls if there are any; or,
 * when that end is out of reach but may still exist, by the host's ends that the result names. Those names
 * are random, and the MAC address must match as well, so that no other interface is deleted.
 */
export async function removeVethPair(call: Call): Promise<void> {
  if (await removeWithOthers(call)) return;
  if (await removeInterface(call)) return;
  const ends = (call.prevResult?.interfaces ?? []).filter(
    ({ name, mac, sandbox }) => !sandbox && mac && /^veth/.test(name),
  );
  for (const { name, mac } of ends) {
    const link = getLink(call.host, name);
    if (link?.kind === 'veth' && link.mac === mac) await deleteLinkIfPresent(call.host, link);
  }
}

/** @returns false when the host's end is out of reach, or no other call can be under way. */
async function removeWithOthers(call: Call): Promise<boolean> {
  const { sharing } = call.context;
  const own = sharing && findOwnInterface(call);
  const peer = own && peerOnHost(own.sandbox, own.link);
  if (!peer) return false;
  await sharing.together('delete interfaces', peer, {
    async run(peers) {
      using host = openRouteSocket();
      await deleteHostLinks(host, peers);
    },
    isRefusal: (error) => error instanceof KernelError,
  });
  return true;
}

/**
 * Deletes a link unless it has gone by itself, as the kernel deletes a namespace's interfaces in the
 * background.
 */
async function deleteLinkIfPresent(socket: RouteSocket, link: Link): Promise<boolean> {
  try {
    await socket.executeInThreadPool(deleteLink(link.index, link.name));
    return true;
  } catch (error) {
    if (!isKernelError(error, 'ENODEV')) throw error;
    return false;
  }
}
