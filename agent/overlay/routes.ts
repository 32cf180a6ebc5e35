/** Routes to the subnets of other nodes. */

import type { Address, Family } from '../../lib/ip.ts';
import {
  listRoutes,
  type Route,
  RouteProtocol,
  type RouteSettings,
  RouteTable,
  removeRoute,
  replaceRoute,
} from '../../lib/kernel/route.ts';
import type { RouteSocket } from '../../lib/kernel/route-socket.ts';
import { tryAll } from './dataplane.ts';
import type { Range } from './network-config.ts';

/** A route to a node's subnet. */
export type NodeRoute = RouteSettings & { readonly gw: Address; readonly link: number };

const unicast = 1;

/**
 * Makes the routes of a family match those that are wanted. Others are left alone unless they look like a
 * node's: to a subnet of the network, via a gateway.
 * @param links indexes of the interfaces that lead to nodes, whatever the backend.
 * @returns what the kernel refused.
 */
export function reconcileRoutes(
  socket: RouteSocket,
  family: Family,
  wanted: readonly NodeRoute[],
  { network }: Range,
  links: readonly number[],
): string[] {
  const isOfNode = ({ dst, link, gw, type, protocol }: Route) =>
    type === unicast &&
    protocol === RouteProtocol.Boot &&
    gw !== undefined &&
    link !== undefined &&
    links.includes(link) &&
    dst.length > network.length &&
    network.contains(dst.address);
  const found = listRoutes(socket, { family, table: RouteTable.Main });
  const destinations = new Set(wanted.map(({ dst }) => `${dst}`));
  const present = new Set(found.map(keyOf));
  const stale = found.filter((route) => isOfNode(route) && !destinations.has(`${route.dst}`));
  const missing = wanted.filter((route) => !present.has(keyOf(route)));
  // Whatever the outcome: a route that somebody else has removed is gone all the same.
  tryAll(socket, stale.map(removeRoute));
  return tryAll(socket, missing.map(replaceRoute));
}

function keyOf({ dst, gw, link }: RouteSettings): string {
  return `${dst} ${gw} ${link}`;
}
