/** An open sandbox: a container's network namespace, and a socket in it. */

import { Netns } from './netns.ts';
import { openRouteSocket, type RouteSocket } from './route-socket.ts';

/** A container's network namespace, held open. */
export interface Sandbox {
  readonly netns: Netns;
  readonly socket: RouteSocket;
}

/** Opens a sandbox. @param path of its network namespace. @throws NetnsGoneError when it does not exist. */
export function openSandbox(path: string): Sandbox {
  return sandboxOf(Netns.open(path));
}

/** Opens a sandbox if it still exists, as DEL must do without it. */
export function openSandboxIfPresent(path: string): Sandbox | undefined {
  const netns = Netns.openIfPresent(path);
  return netns && sandboxOf(netns);
}

function sandboxOf(netns: Netns): Sandbox {
  try {
    return { netns, socket: openRouteSocket(netns) };
  } catch (error) {
    netns.close();
    throw error;
  }
}
