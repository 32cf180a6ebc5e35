/**
 * sbr: source-based routing. Packets from the container's addresses on this interface leave by this
 * interface.
 */

import type { Call } from '../lib/cni/call.ts';
import { addressesByName, knownAddresses } from '../lib/cni/interface.ts';
import { findOwnSandbox } from '../lib/cni/own-interface.ts';
import { definePlugin, requirePrevResult } from '../lib/cni/plugin.ts';
import { addressSchema, type IPConfig, type Result } from '../lib/cni/result.ts';
import { array, boolean, type InferShape, integer } from '../lib/cni/schema.ts';
import { Address, type Family, Prefix } from '../lib/ip.ts';
import { listAddresses } from '../lib/kernel/address.ts';
import { getLink, type Link, requireLink } from '../lib/kernel/link.ts';
import {
  addRoute,
  copyRoute,
  listRoutes,
  listRoutesOver,
  putBackRoute,
  type Route,
  RouteTable,
  removeRoute,
  replaceRoute,
} from '../lib/kernel/route.ts';
import type { RouteSocket } from '../lib/kernel/route-socket.ts';
import { addRoutingRule, deleteRoutingRule, listRoutingRules } from '../lib/kernel/rule.ts';
import { lockSandbox } from '../lib/kernel/sandbox.ts';
import { requireGone, requirePresent } from '../lib/netlink/error.ts';

/** The first table tried in the search for an unused one. */
const firstTable = 100;

const config = {
  table: integer({
    min: 1,
    max: 0xffffffff,
    description:
      'Table to look routes up in, which another program fills. By default the routes of the interface are moved to a new one.',
  }),
  gateways: array(addressSchema, {
    description: 'Gateways in place of those that the plugin before gave, at most one of each family.',
  }),
  addSourceHints: boolean({
    description: 'Keep the routes to the subnets of the interface in the main table as well.',
  }),
};

type Config = InferShape<typeof config>;
type SbrCall = Call<Config>;

export const plugin = definePlugin({
  name: 'sbr',
  summary: "Has packets from an interface's addresses leave by that interface.",
  role: 'chained',
  config,

  validate,

  explain: ({ table, gateways }) => [
    table === undefined
      ? 'Moves the routes of the interface to a routing table of its own'
      : `Uses routing table ${table}, which must be filled by another plugin or program`,
    gateways?.length ? `Adds default routes via ${gateways.join(' and ')} to that table` : '',
    'Adds rules by which packets from the addresses of the interface are routed by that table',
  ],

  async add(call) {
    const result = requirePrevResult(call);
    validate(call.config);
    const ips = wantedAddresses(call, result);
    const { sandbox } = call;
    await lockSandbox(sandbox);
    const { table } = call.config;
    if (table === undefined) moveRoutes(call, sandbox.socket, ips);
    else for (const ip of ips) addRuleFor(call, sandbox.socket, ip, table);
    return result;
  },

  async del(call) {
    const sandbox = findOwnSandbox(call);
    if (!sandbox) return;
    await lockSandbox(sandbox);
    const { socket } = sandbox;
    const link = getLink(socket, call.ifname);
    const own = link ? listAddresses(socket, link.index).map(({ prefix }) => prefix) : [];
    const sources = [...own, ...knownAddresses(call)].map(({ address }) => address.toPrefix());
    const rules = listRoutingRules(socket).flatMap((rule) => {
      const { src } = rule;
      return src && sources.some((source) => source.equals(src)) ? [{ ...rule, src }] : [];
    });
    // A rule that is gone meanwhile is as good as removed.
    requireGone(socket.attempt(...rules.map(deleteRoutingRule)));
  },

  check(call) {
    const { socket } = call.sandbox;
    const rules = listRoutingRules(socket);
    for (const { address, gateway } of wantedAddresses(call, requirePrevResult(call))) {
      const source = address.address.toPrefix();
      const { table } =
        rules.find(({ src, table }) => src?.equals(source) && table === (call.config.table ?? table)) ?? {};
      if (table === undefined)
        throw new Error(
          `No rule leads packets from ${source} to a table of their own. Delete the container and add it again`,
        );
      if (call.config.table !== undefined || !gateway) continue;
      const routes = listRoutes(socket, { family: source.family, table });
      // Unless "gateways" is set, the interface's own default route may stand in for one via this gateway.
      const isConfigured = call.config.gateways?.some(({ family }) => family === source.family) ?? false;
      if (!routes.some(({ dst, gw }) => dst.length === 0 && (!isConfigured || gateway.equals(gw))))
        throw new Error(
          `Table ${table}, for packets from ${source}, has no default route via ${gateway}. Delete the container and add it again`,
        );
    }
  },
});

/** Refuses several gateways of one family. */
function validate({ gateways = [] }: Config): void {
  const byFamily = new Map<Family, Address>();
  for (const gateway of gateways) {
    const other = byFamily.get(gateway.family);
    if (other)
      throw new Error(
        `"gateways" has ${other} and ${gateway}, but only one gateway of each family can be used. Remove one`,
      );
    byFamily.set(gateway.family, gateway);
  }
}

/**
 * The addresses of the interface, with their gateways. As in the reference plugin, it may have none where
 * another interface has some.
 */
function wantedAddresses({ config, ifname }: SbrCall, result: Result): IPConfig[] {
  if (result.ips.length === 0)
    throw new Error(
      '"prevResult" has no IP address, so there is nothing to route by. Put this plugin behind one that gives the interface an address',
    );
  return addressesByName({ ifname }, result).map((ip) => {
    const configured = config.gateways?.find(({ family }) => family === ip.address.family);
    const gateway = configured ?? ip.gateway;
    return { ...ip, ...(gateway && { gateway }) };
  });
}

function addRuleFor(call: SbrCall, socket: RouteSocket, { address }: IPConfig, table: number): void {
  const rule = { src: address.address.toPrefix(), table };
  socket.execute(addRoutingRule(rule));
  call.undo(`delete the routing rule for table ${table}`, () => void socket.attempt(deleteRoutingRule(rule)));
}

/**
 * Gives each address a table with a default route and the routes of the interface, and removes those from the
 * main table.
 */
function moveRoutes(call: SbrCall, socket: RouteSocket, ips: readonly IPConfig[]): void {
  const link = requireLink(socket, call.ifname);
  const routes = movableRoutes(socket, link);
  const tables = freeTables(socket);
  const moved = new Set<Route>();
  for (const ip of ips) {
    const table = tables.next().value;
    addRuleFor(call, socket, ip, table);
    call.undo(
      `empty routing table ${table}`,
      () => void socket.attempt(...listRoutes(socket, { family: ip.address.family, table }).map(removeRoute)),
    );
    const own = routes.filter((route) => belongsTo(route, ip, ips));
    const copies = own.filter((route) => !isReplaced(call, route)).map((route) => copyRoute(route, table));
    // The default route may be among what is copied, as a next hop of one that leads elsewhere, too.
    requirePresent(
      socket.attempt(
        ...(ip.gateway ? [addRoute({ dst: defaultOf(ip), gw: ip.gateway, link: link.index, table })] : []),
        ...copies,
      ),
    );
    for (const route of own) moved.add(route);
  }
  // Only now, as several addresses may need the same routes.
  const hints = call.config.addSourceHints ?? false;
  const leaving = [...moved].filter((route) => !(hints && isOnLink(route)));
  call.undo('put routes back into the main table', () => restore(socket, leaving));
  socket.execute(...leaving.map(removeRoute));
  if (hints) addSourceHints(call, socket, [...moved].filter(isOnLink), ips);
}

/** Puts routes back into the main table, on-link ones first: the others' gateways are reached by them. */
function restore(socket: RouteSocket, routes: readonly Route[]): void {
  const inOrder = [...routes.filter(isOnLink), ...routes.filter((route) => !isOnLink(route))];
  socket.attempt(...inOrder.map(putBackRoute));
}

/** Makes an address the source of packets to its subnet whose program has not chosen one. */
function addSourceHints(
  call: SbrCall,
  socket: RouteSocket,
  routes: readonly Route[],
  ips: readonly IPConfig[],
): void {
  for (const route of routes) {
    const subnet = ips.find(({ address }) => address.network.equals(route.dst));
    if (!subnet || route.src) continue;
    socket.execute(replaceRoute({ ...route, src: subnet.address.address }));
    call.undo('take the source from a route', () => void socket.attempt(copyRoute(route)));
  }
}

/** The routes of the interface in the main table, except link-local ones, which mean nothing beyond it. */
function movableRoutes(socket: RouteSocket, link: Link): Route[] {
  return listRoutesOver(socket, link.index, RouteTable.Main).filter(({ dst }) => !dst.address.isLinkLocal);
}

/**
 * True for a route that is of use to packets from the address: by its source or its gateway, or because these
 * are in the subnet of no other address either, as a link-local gateway is not.
 */
function belongsTo(route: Route, { address }: IPConfig, ips: readonly IPConfig[]): boolean {
  if (route.family !== address.family) return false;
  const hints = [route.src, route.gw, ...route.hops.map(({ gw }) => gw)].filter((hint) => hint !== undefined);
  const isHinted = (one: IPConfig) => hints.some((hint) => one.address.contains(hint));
  return isHinted({ address }) || !ips.some(isHinted);
}

/** True for a default route that a configured gateway replaces. */
function isReplaced({ config }: SbrCall, { dst, family }: Route): boolean {
  return dst.length === 0 && (config.gateways ?? []).some((gateway) => gateway.family === family);
}

function isOnLink({ gw, hops }: Route): boolean {
  return !gw && hops.length === 0;
}

function defaultOf({ address: { family } }: IPConfig): Prefix {
  return new Prefix(new Address(family, 0n), 0);
}

/** Numbers of tables that no rule and no route uses. */
function* freeTables(socket: RouteSocket): Generator<number, never> {
  const used = new Set([...listRoutingRules(socket), ...listRoutes(socket)].map(({ table }) => table));
  for (let table = firstTable; ; table++) if (!used.has(table)) yield table;
}
