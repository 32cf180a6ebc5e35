/**
 * Virtual routing and forwarding: interfaces whose members are routed by a table of their own. Source: the
 * kernel's networking/vrf.rst.
 */

import { createLink, listLinks } from './link.ts';
import { vrfKind, vrfTable } from './link-kinds.ts';
import { RouteTable } from './route.ts';
import type { RouteSocket } from './route-socket.ts';

const wellKnown: readonly number[] = Object.values(RouteTable);

/** Creates a VRF, and brings it up. @param table by default the first that no other VRF has. */
export function createVrf(socket: RouteSocket, name: string, table = freeTable(socket)): void {
  socket.execute(createLink(vrfKind(table), { name, up: true }));
}

function freeTable(socket: RouteSocket): number {
  const used = new Set([...wellKnown, ...listLinks(socket).map(vrfTable)]);
  for (let table = 1; ; table++) if (!used.has(table)) return table;
}
