/**
 * Waiting for something that the kernel does: it is checked again whenever the kernel reports a change.
 * Source: rtnetlink(7).
 */

import { NetlinkProtocol, NetlinkSocket } from '../netlink/socket.ts';
import type { Netns } from './netns.ts';

/** Multicast groups of linux/rtnetlink.h (RTMGRP_*). */
export const NetlinkGroup = { Link: 0x1, IPv6Address: 0x100, IPv6Route: 0x400 } as const;

/**
 * Milliseconds between two checks of the socket: short at first, as most changes take the kernel no longer.
 */
const shortestPause = 1;
const longestPause = 10;
/** Milliseconds after which the predicate is tried even if nothing was reported. */
const longestSilence = 1000;

/**
 * Waits until a predicate holds, trying it again whenever the kernel reports a change. Other calls go on
 * meanwhile.
 * @param groups of {@link NetlinkGroup}, combined.
 * @param netns whose changes are watched; the thread's own namespace when left out.
 * @returns false when it did not hold in time.
 * @throws what the predicate throws.
 */
export async function waitForEvent(
  groups: number,
  timeoutMs: number,
  predicate: () => boolean,
  netns?: Netns,
): Promise<boolean> {
  if (predicate()) return true;
  const listen = () => new NetlinkSocket(NetlinkProtocol.Route, { groups });
  using events = netns ? netns.run(listen) : listen();
  const end = performance.now() + timeoutMs;
  for (;;) {
    // The first time, too: it may have come true before the socket was open.
    if (predicate()) return true;
    const silence = performance.now() + longestSilence;
    for (let pause = shortestPause; !events.drain(); pause = Math.min(pause * 2, longestPause)) {
      if (performance.now() >= end) return predicate();
      if (performance.now() >= silence) break;
      // Not node:timers/promises, which takes half a millisecond to load.
      await new Promise((resolve) => setTimeout(resolve, pause));
    }
  }
}
