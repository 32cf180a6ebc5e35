/** rtnetlink in a given network namespace. Source: rtnetlink(7). */

import { NetlinkProtocol, NetlinkSocket } from '../netlink/socket.ts';
import type { Netns } from './netns.ts';

/** A socket for links, addresses, routes and the like. */
export type RouteSocket = NetlinkSocket;

/**
 * Opens a socket that works on a namespace without entering it again.
 * @param netns the namespace; the thread's own when left out.
 * @throws KernelError
 */
export function openRouteSocket(netns?: Netns): RouteSocket {
  const open = () => new NetlinkSocket(NetlinkProtocol.Route);
  return netns ? netns.run(open) : open();
}
