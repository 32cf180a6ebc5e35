/**
 * What macvlan, ipvlan and vlan have in common: their interface sits on another one, its parent, which
 * configurations call "master".
 */

import { getLink, type Link, type LinkKind, type LinkSettings } from '../kernel/link.ts';
import { listRoutes } from '../kernel/route.ts';
import type { RouteSocket } from '../kernel/route-socket.ts';
import type { Call } from './call.ts';
import { createInterface } from './create-interface.ts';
import type { CheckedInterface } from './interface-check.ts';
import type { Attached } from './main-plugin.ts';
import { boolean, integer, string } from './schema.ts';

/** Keys of plugins whose interface sits on another one. */
export const parentShape = {
  master: string({ description: 'Interface to sit on; by default that of the first default route.' }),
  mtu: integer({ max: 65535, description: 'MTU in bytes; 0 is the one of the master.' }),
  linkInContainer: boolean({ description: 'The master is in the sandbox.' }),
};

export interface ParentConfig {
  master?: string;
  linkInContainer?: boolean;
  mtu?: number;
}

/** Names the parent in a sentence: "up0" in quotes, or that it is found by the default route. */
export function describeParent({ master }: ParentConfig): string {
  return master ? `"${master}"` : 'the interface of the default route';
}

/** Socket of the namespace that the parent is in. */
function parentSocket(call: Call<ParentConfig>): RouteSocket {
  return call.config.linkInContainer ? call.sandbox.socket : call.host;
}

/**
 * The parent.
 * @param name of the parent; the configuration's "master" when left out.
 * @param options.isLargerMtuPossible whether the kernel allows a larger MTU than the parent's.
 * @throws Error when it does not exist, or has a smaller MTU than is asked for and the kernel does not allow
 *   that.
 */
export function findParent(
  call: Call<ParentConfig>,
  name = call.config.master,
  { isLargerMtuPossible = false } = {},
): Link {
  const { linkInContainer = false, mtu = 0 } = call.config;
  const where = linkInContainer ? `in sandbox "${call.netns}"` : 'on the host';
  const socket = parentSocket(call);
  const parent = getLink(socket, name || defaultRouteInterface(socket, where));
  if (!parent)
    throw new Error(
      `Master "${name}" does not exist ${where}. Correct "master"${linkInContainer ? '' : ', or set "linkInContainer" if it is in the sandbox'}`,
    );
  if (mtu > parent.mtu) {
    const problem = `"mtu" is ${mtu}, but master "${parent.name}" has only ${parent.mtu}. Set it to that or less, or raise the master's`;
    if (!isLargerMtuPossible) throw new Error(problem);
    call.warn(problem);
  }
  // No error, as the host may be booting: the interface works once its parent does.
  if (!parent.up)
    call.warn(`Master "${parent.name}" is down. Bring it up with "ip link set ${parent.name} up"`);
  return parent;
}

/**
 * The parent of an interface that takes frames from it as a bridge does from its port: the kernel has room
 * for only one such receiver (netdev_rx_handler_register in net/core/dev.c). VLAN frames are handed over
 * before.
 * @throws like {@link findParent}; Error when the parent is a port itself.
 */
export function findParentOfFrames(
  call: Call<ParentConfig>,
  name?: string,
  options?: { isLargerMtuPossible?: boolean },
): Link {
  const parent = findParent(call, name, options);
  if (parent.portKind && parent.portKind !== 'vrf')
    throw new Error(
      `Master "${parent.name}" is a port of a ${parent.portKind} itself, which gets all its frames. Use the ${parent.portKind} as "master", or take the port out of it`,
    );
  return parent;
}

/**
 * STATUS of the parent, if it is on the host.
 * @param find how ADD finds it. @throws what `find` throws.
 */
export function checkParentExists(
  call: Call<ParentConfig>,
  find: (call: Call<ParentConfig>) => Link = findParent,
): void {
  if (!call.config.linkInContainer) find(call);
}

/** CHECK of the parent, but not of the MTU, which later plugins may have changed. */
export function checkParent(call: Call<ParentConfig>, { link }: CheckedInterface): void {
  const { master } = call.config;
  if (!master) return;
  const parent = getLink(parentSocket(call), master);
  if (!parent)
    throw new Error(
      `Master "${master}" no longer exists. Create it again, then delete the container and add it`,
    );
  // When the master is a macvlan or ipvlan itself, the kernel puts the new one beside it, on the same parent.
  const isBeside = parent.kind === link.kind && link.kind !== 'vlan';
  const below = isBeside ? parent.parent : parent.index;
  if (link.parent !== undefined && below !== undefined && link.parent !== below)
    throw new Error(
      `Interface "${link.name}" does not sit on master "${master}". Delete the container and add it again`,
    );
}

/**
 * CHECK of the mode, by which interfaces on a parent talk to one another.
 * @param mode as the kernel has it.
 */
export function checkMode({ link }: CheckedInterface, mode: string | undefined, wanted: string): void {
  if (mode !== wanted)
    throw new Error(
      `Interface "${link.name}" has mode "${mode}", but should have "${wanted}". Delete the container and add it again`,
    );
}

/** Creates the sandbox's interface on its parent, with the parent's MTU unless the configuration sets one. */
export function createOnParent(
  call: Call<ParentConfig>,
  kind: LinkKind,
  parent: Link,
  settings: LinkSettings = {},
): Attached {
  return createInterface(
    call,
    kind,
    { ...settings, mtu: call.config.mtu || parent.mtu, parent: parent.index },
    parentSocket(call),
  );
}

function defaultRouteInterface(socket: RouteSocket, where: string): string {
  for (const family of [4, 6] as const) {
    const route = listRoutes(socket, { family, table: 254 }).find(({ dst }) => dst.length === 0);
    const index = route?.link ?? route?.hops[0]?.link;
    const link = index === undefined ? undefined : getLink(socket, index);
    if (link) return link.name;
  }
  throw new Error(
    `"master" is not set, and ${where} there is no default route to take it from. Set "master"`,
  );
}
