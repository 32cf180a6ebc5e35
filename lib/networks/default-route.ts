/** Which network of a pod provides its default routes, when several offer one. */

import { type Family, families, Prefix } from '../ip.ts';
import { requireLink } from '../kernel/link.ts';
import { deleteRoute, listRoutes, RouteTable, removeRoute, replaceRoute } from '../kernel/route.ts';
import type { RouteSocket } from '../kernel/route-socket.ts';
import type { AddedDelegate, Delegate } from './delegates.ts';

/** @throws Error when two networks ask for the default route of one family. */
export function refuseRivals(delegates: readonly Delegate[]): void {
  for (const family of families) {
    const wanted = delegates.flatMap(({ label, defaultRoute = [] }) =>
      defaultRoute.filter((one) => one.family === family).map((gateway) => `${gateway} of "${label}"`),
    );
    if (wanted.length > 1)
      throw new Error(`"default-route" asks for ${wanted.join(' and ')}. Keep one of IPv${family}`);
  }
}

/**
 * Leaves the pod one default route of each family: that of the network for which "default-route" is set, else
 * that of its first network, which the standard calls the cluster-wide default network.
 * @param open returns a socket in the sandbox; called only when one is needed.
 * @returns the delegates with their updated results.
 */
export function settleDefaultRoutes(
  open: () => RouteSocket,
  delegates: readonly AddedDelegate[],
): AddedDelegate[] {
  return families.reduce((current, family) => settle(open, current, family), [...delegates]);
}

function settle(open: () => RouteSocket, delegates: AddedDelegate[], family: Family): AddedDelegate[] {
  const asked = delegates.find((one) => one.defaultRoute?.some((gateway) => gateway.family === family));
  const left = delegates.find((one) => one.defaultRoute?.length === 0 && hasDefault(one, family));
  const owner = asked ?? left ?? delegates.find((one) => hasDefault(one, family));
  if (!owner) return delegates;
  return delegates.map((one) => {
    const gw = one === owner ? one.defaultRoute?.find((gateway) => gateway.family === family) : undefined;
    if (one === owner && !gw) return one;
    if (!gw && !hasDefault(one, family)) return one;
    const socket = open();
    const { index: link } = requireLink(socket, one.ifname);
    removeDefaults(socket, family, link);
    const routes = one.result.routes.filter((route) => !isDefault(route, family));
    if (gw) {
      const dst = new Prefix(gw, 0).network;
      socket.execute(replaceRoute({ dst, gw, link }));
      routes.push({ dst, gw });
    }
    return { ...one, result: { ...one.result, routes } };
  });
}

/** Removes the default routes through an interface; those through others stay. */
function removeDefaults(socket: RouteSocket, family: Family, link: number): void {
  for (const route of listRoutes(socket, { family, link, table: RouteTable.Main })) {
    if (route.dst.length > 0) continue;
    // The kernel turns IPv6 routes of the same metric into the next hops of one route.
    const hops = family === 6 ? route.hops.filter((hop) => hop.link === link) : [];
    const { dst, table, priority } = route;
    for (const { gw } of hops) socket.execute(deleteRoute({ dst, gw, link, table, priority }));
    if (hops.length === 0) socket.execute(removeRoute(route));
  }
}

function hasDefault({ result }: AddedDelegate, family: Family): boolean {
  return result.routes.some((route) => isDefault(route, family));
}

function isDefault({ dst, table = 0 }: { dst: Prefix; table?: number }, family: Family): boolean {
  return dst.family === family && dst.length === 0 && (table === 0 || table === RouteTable.Main);
}
