/** STATUS of plugins that need something of the kernel: the only way to know is to try. */

import { CniError, ErrorCode } from '../errors.ts';
import { Netns } from '../kernel/netns.ts';
import { openRouteSocket, type RouteSocket } from '../kernel/route-socket.ts';

/**
 * Tries something out in a namespace of its own, which is gone with the process.
 * @param trial works on the namespace, and throws when the kernel cannot do it.
 * @throws CniError NotAvailable with what the kernel said.
 */
export function probeKernel(trial: (socket: RouteSocket) => void): void {
  try {
    trial(openRouteSocket(Netns.create()));
  } catch (error) {
    throw new CniError(
      ErrorCode.NotAvailable,
      `The kernel of this node cannot do what the plugin needs: ${(error as Error).message}. Load or enable the module`,
    );
  }
}
