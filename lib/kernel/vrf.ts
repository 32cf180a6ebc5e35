/**
 * Virtual routing and forwarding: interfaces whose members are routed by a table of their own. Source: the
 * kernel's networking/vrf.rst.
 */

import { createLink, type Link, listLinks } from './link.ts';
import { vrfKind, vrfTable } from './link-kinds.ts';
import { RouteTable } from './route.ts';
import type { RouteSocket } from './route-socket.ts';

const wellKnown: readonly number[] = Object.values(RouteTable);

/** Creates a VRF, and brings it up. @param table by default the first that no other VRF has. */
export function createVrf(socket: RouteSocket, name: string, table = freeTable(socket)): void {
  socket.execute(createLink(vrfKind(table), { name, up: true }));
}

/** The interfaces that are in a VRF. */
export function vrfMembers(socket: RouteSocket, vrf: Link): Link[] {
  return listLinks(socket).filter(({ master }) => master === vrf.index);
}

function freeTable(socket: RouteSocket): number {
  const used = new Set([...wellKnown, ...listLinks(socket).map(vrfTable)]);
  for (let table = 1; ; table++) if (!used.has(table)) return table;
}
