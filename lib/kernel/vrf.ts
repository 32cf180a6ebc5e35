/** Virtual routing and forwarding: interfaces that route by a table of their own. Source: linux/if_link.h, the kernel's networking/vrf.rst. */

import { u32Attr } from '../netlink/message.ts';
import { createLink, type Link, listLinks, requireLink } from './link.ts';
import { RouteTable } from './route.ts';
import type { RouteSocket } from './route-socket.ts';

const IFLA_VRF_TABLE = 1;
const wellKnown: readonly number[] = Object.values(RouteTable);

/** The table that a VRF routes by. @returns undefined when the interface is no VRF. */
export function vrfTable({ kind, data }: Link): number | undefined {
  return kind === 'vrf' ? data?.u32(IFLA_VRF_TABLE) : undefined;
}

/** Makes a VRF, and sets it up. @param table by default the first that no other VRF has. */
export function createVrf(socket: RouteSocket, name: string, table = freeTable(socket)): Link {
  const kind = { kind: 'vrf', data: [u32Attr(IFLA_VRF_TABLE, table)] };
  socket.execute(createLink(kind, { name, up: true }));
  return requireLink(socket, name);
}

/** The interfaces that are in a VRF. */
export function vrfMembers(socket: RouteSocket, vrf: Link): Link[] {
  return listLinks(socket).filter(({ master }) => master === vrf.index);
}

function freeTable(socket: RouteSocket): number {
  const used = new Set([...wellKnown, ...listLinks(socket).map(vrfTable)]);
  for (let table = 1; ; table++) if (!used.has(table)) return table;
}
