/** STATUS of plugins that need a feature of the kernel, which can only be found out by trying it. */

import { CniError, ErrorCode } from '../errors.ts';
import { Netns } from '../kernel/netns.ts';
import { openRouteSocket, type RouteSocket } from '../kernel/route-socket.ts';

/**
 * Tries something out in a network namespace of its own, which disappears with everything in it.
 * @param probe works on the namespace, and throws when the kernel cannot do it.
 * @throws CniError NotAvailable with what the kernel said.
 */
export function probeKernel(probe: (socket: RouteSocket) => void): void {
  try {
    using netns = Netns.create();
    using socket = openRouteSocket(netns);
    probe(socket);
  } catch (error) {
    throw new CniError(
      ErrorCode.NotAvailable,
      `The kernel of this host cannot do what the plugin needs: ${(error as Error).message}. Load or enable the module`,
    );
  }
}
