/** Waiting for the kernel to bring something about, told by it rather than by asking again and again. Source: rtnetlink(7). */

import { isKernelError } from '../netlink/libc.ts';
import { NetlinkProtocol, NetlinkSocket } from '../netlink/socket.ts';
import type { Netns } from './netns.ts';

/** Multicast groups of linux/rtnetlink.h (RTMGRP_*). */
export const NetlinkGroup = { Link: 0x1, IPv6Address: 0x100, IPv6Route: 0x400 } as const;

/**
 * Waits until something is so, looking whenever there is news of the kind.
 * @param groups of {@link NetlinkGroup}, added up.
 * @param patience how long to wait, in milliseconds.
 * @param netns where it is to happen; the thread's own namespace when left out.
 * @returns false when it was not so in time.
 * @throws what `isSo` throws.
 */
export function waitForEvent(groups: number, patience: number, isSo: () => boolean, netns?: Netns): boolean {
  if (isSo()) return true;
  const listen = () => new NetlinkSocket(NetlinkProtocol.Route, { groups, timeout: 1 });
  using news = netns ? netns.run(listen) : listen();
  for (const until = Date.now() + patience; ; ) {
    // At first, too: it may have come about before anybody listened.
    if (isSo()) return true;
    if (Date.now() >= until) return false;
    try {
      news.receive();
    } catch (error) {
      // No news for a second, or more than the socket holds.
      if (!isKernelError(error, 'ETIMEDOUT', 'ENOBUFS')) throw error;
    }
  }
}
