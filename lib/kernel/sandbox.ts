/** An open sandbox: a container's network namespace, and a socket in it. */

import { lockDescriptor } from './lock.ts';
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

/** Opens a sandbox if it still exists: DEL must be able to do without it. */
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

/**
 * Waits until no other plugin works on a sandbox, for plugins that choose something unused in it, such as a
 * table. The reference plugin sbr takes the same lock. It ends when the sandbox is closed, at the end of the
 * call.
 * @throws CniError TryAgainLater when another process holds the lock for too long.
 */
export async function lockSandbox({ netns }: Sandbox): Promise<void> {
  await lockDescriptor(netns.fd, netns.path);
}
