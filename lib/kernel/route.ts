/** Routes. Source: rtnetlink(7), linux/rtnetlink.h. */

import { Address, type Family, Prefix } from '../ip.ts';
import { attributes, layout, raw } from '../netlink/attributes.ts';
import { isKernelError } from '../netlink/libc.ts';
import { bytesAttr, concat, Flag, listAttributes, type Message, type Request } from '../netlink/message.ts';
import { each, struct, u8, u32 } from '../netlink/struct.ts';
import { addressFamily, familyOf, ipAddress } from './family.ts';
import { type NextHop, RTA_GATEWAY, RTNH_F_ONLINK, readNextHops, withoutHopState } from './next-hops.ts';
import type { RouteSocket } from './route-socket.ts';

const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
const RTM_GETROUTE = 26;
const RTA_OIF = 4;
const RTA_MULTIPATH = 9;
const RTA_CACHEINFO = 12;
const RTA_TABLE = 15;
const RTN_UNICAST = 1;

const rtmsg = struct({
  ...each(u8, 'family', 'dstLength', 'srcLength', 'tos', 'table', 'protocol', 'scope', 'type'),
  flags: u32,
});

const routeLayout = layout(
  rtmsg,
  attributes({
    table: [RTA_TABLE, u32, 'table'],
    dst: [1, ipAddress, 'destination'],
    link: [RTA_OIF, u32],
    gw: [RTA_GATEWAY, ipAddress, 'gateway'],
    priority: [6, u32, 'priority'],
    src: [7, ipAddress, 'source address'],
    metrics: [8, attributes({ mtu: [2, u32, 'MTU'], advmss: [8, u32, 'advertised MSS'] })],
    hops: [RTA_MULTIPATH, raw],
  }),
);

/** Scopes of linux/rtnetlink.h. */
export const RouteScope = { Universe: 0, Link: 253, Host: 254, Nowhere: 255 } as const;

/** Who made a route, of linux/rtnetlink.h. */
export const RouteProtocol = { Kernel: 2, Boot: 3 } as const;

/** Tables of linux/rtnetlink.h. */
export const RouteTable = { Default: 253, Main: 254, Local: 255 } as const;

/** A route to add, or what is known of one to remove. */
export interface RouteSettings {
  dst: Prefix;
  gw?: Address | undefined;
  /** Index of the interface. */
  link?: number;
  /** Preferred source address. */
  src?: Address;
  scope?: number | undefined;
  table?: number | undefined;
  /** Metric; lower wins. */
  priority?: number | undefined;
  /** Bytes. */
  mtu?: number | undefined;
  /** Bytes. */
  advmss?: number | undefined;
  protocol?: number;
  /** Regard the gateway as reachable over the interface, whatever addresses that has. */
  onlink?: boolean;
}

/** A route as the kernel has it. */
export interface Route extends RouteSettings {
  family: Family;
  table: number;
  protocol: number;
  scope: number;
  /** RTN_*, 1 for an ordinary one. */
  type: number;
  /** The next hops of a multipath route. */
  hops: NextHop[];
  /** Set for one next hop of a route that leads elsewhere, too; see {@link listRoutesOver}. */
  isPart?: boolean;
  /** The kernel's message about the route, with what the fields above leave out. */
  payload: Uint8Array;
}

/**
 * Adds a route. An existing route with the same destination, metric and gateway is an error (EEXIST), but a
 * second IPv6 gateway makes a multipath route.
 */
export function addRoute(route: RouteSettings): Request {
  return routeRequest('add', RTM_NEWROUTE, Flag.Create, route);
}

/**
 * Adds a route. An existing one with the same destination and metric is an error (EEXIST), wherever it leads.
 */
export function addOnlyRoute(route: RouteSettings): Request {
  return routeRequest('add', RTM_NEWROUTE, Flag.Create | Flag.Exclusive, route);
}

/** Adds a route, in place of one with the same destination and metric if there is one. */
export function replaceRoute(route: RouteSettings): Request {
  return routeRequest('replace', RTM_NEWROUTE, Flag.Create | Flag.Replace, route);
}

/** Removes the first route that matches. */
export function deleteRoute(route: RouteSettings): Request {
  return routeRequest('remove', RTM_DELROUTE, 0, { scope: RouteScope.Nowhere, ...route });
}

/**
 * Adds a route with everything that the kernel knows about it, in place of one with the same destination and
 * metric; a next hop is added to the others that the table has for it.
 * @param table by default its own.
 */
export function copyRoute(route: Route, table = route.table): Request {
  const flags = route.isPart ? Flag.Create : Flag.Create | Flag.Replace;
  return rawRouteRequest('copy', RTM_NEWROUTE, flags, route, table);
}

/** Adds a route as {@link copyRoute} does, beside others with the same destination and metric. */
export function putBackRoute(route: Route): Request {
  return rawRouteRequest('put back', RTM_NEWROUTE, Flag.Create, route, route.table);
}

/** Removes exactly this route, or this next hop. */
export function removeRoute(route: Route): Request {
  return rawRouteRequest('remove', RTM_DELROUTE, 0, route, route.table);
}

/** Routes, by default all of them. */
export function listRoutes(
  socket: RouteSocket,
  filter: { family?: Family; link?: number; table?: number } = {},
): Route[] {
  const { family, link, table } = filter;
  const header = { family: family ? addressFamily[family] : 0 };
  // The kernel filters by table and interface only when it is told the family.
  const payload = family ? routeLayout.encode(header, { table, link }) : rtmsg.encode(header);
  let messages: Message[];
  try {
    messages = socket.dump({ action: 'list routes', type: RTM_GETROUTE, flags: 0, payload });
  } catch (error) {
    // A table that does not exist has no routes, and neither has a family that the kernel lacks.
    const isEmpty = table !== undefined && isKernelError(error, 'ENOENT');
    if (isEmpty || isKernelError(error, 'EAFNOSUPPORT')) return [];
    throw error;
  }
  return messages
    .flatMap((message) => readRoute(message.payload) ?? [])
    .filter(
      (route) =>
        // A kernel without IPv6 answers a request for IPv6 routes with all the routes it has.
        (family === undefined || route.family === family) &&
        (table === undefined || route.table === table) &&
        (link === undefined || route.link === link || route.hops.some((hop) => hop.link === link)),
    );
}

/**
 * The routes that an interface takes with it when it gets a table of its own. Of a route that leads over
 * other interfaces as well, these are its next hops over this one, each like a route: the kernel makes one
 * route of the default routes of two interfaces with IPv6. In IPv4, such a route is one that somebody has
 * composed, and is left alone.
 */
export function listRoutesOver(socket: RouteSocket, link: number, table?: number): Route[] {
  return ([4, 6] as const).flatMap((family) =>
    listRoutes(socket, { family, link, ...(table && { table }) }).flatMap((route) => {
      if (route.hops.every((hop) => hop.link === link)) return route;
      return family === 4 ? [] : nextHopsOver(route, link);
    }),
  );
}

function nextHopsOver(route: Route, link: number): Route[] {
  const header = rtmsg.decode(route.payload);
  const shared = listAttributes(route.payload.subarray(rtmsg.size))
    .filter(([attribute]) => attribute !== RTA_MULTIPATH)
    .map(([attribute, value]) => bytesAttr(attribute, value));
  return route.hops
    .filter((hop) => hop.link === link)
    .map(({ gw, bytes }) => ({
      ...route,
      ...{ link, gw, hops: [], isPart: true },
      payload: concat([rtmsg.encode(header), ...shared, bytesAttr(RTA_MULTIPATH, bytes)]),
    }));
}

/**
 * The route that a packet to an address would take.
 * @throws NetlinkError ENETUNREACH when there is none.
 */
export function lookUpRoute(socket: RouteSocket, to: Address): Route | undefined {
  const { family, length } = to.toPrefix();
  const reply = socket.execute({
    action: `look up the route to ${to}`,
    type: RTM_GETROUTE,
    flags: 0,
    payload: routeLayout.encode({ family: addressFamily[family], dstLength: length }, { dst: to }),
  })[0]?.[0];
  return reply && readRoute(reply.payload);
}

function readRoute(payload: Uint8Array): Route | undefined {
  const { dstLength, protocol, scope, type, flags, ...header } = rtmsg.decode(payload);
  const family = familyOf(header.family);
  if (!family) return undefined;
  const { dst, hops, metrics, priority, table = header.table, ...rest } = routeLayout.decode(payload);
  return {
    ...rest,
    family,
    dst: new Prefix(dst ?? new Address(family, 0n), dstLength),
    table,
    protocol,
    scope,
    type,
    priority,
    mtu: metrics?.mtu,
    advmss: metrics?.advmss,
    onlink: (flags & RTNH_F_ONLINK) !== 0,
    hops: hops ? readNextHops(hops) : [],
    payload,
  };
}

/**
 * A request with everything that the kernel reported of a route, but another table, and without the route's
 * state, which the kernel does not accept in requests.
 */
function rawRouteRequest(verb: string, type: number, flags: number, route: Route, table: number): Request {
  const header = rtmsg.decode(route.payload);
  const others = listAttributes(route.payload.subarray(rtmsg.size))
    .filter(([attribute]) => attribute !== RTA_TABLE && attribute !== RTA_CACHEINFO)
    .map(([attribute, value]) =>
      bytesAttr(attribute, attribute === RTA_MULTIPATH ? withoutHopState(value) : value),
    );
  const start = { ...header, table: inHeader(table), flags: header.flags & RTNH_F_ONLINK };
  return {
    action: nameOf(verb, route),
    type,
    flags,
    payload: concat([rtmsg.encode(start), ...others, routeLayout.attributes.encode({ table })]),
    names: routeLayout,
  };
}

function routeRequest(verb: string, type: number, flags: number, route: RouteSettings): Request {
  const { dst, gw, link, src, scope = RouteScope.Universe, table = RouteTable.Main, priority } = route;
  const isNew = type === RTM_NEWROUTE;
  const mtu = route.mtu || undefined;
  const advmss = route.advmss || undefined;
  return {
    action: nameOf(verb, route),
    type,
    flags,
    payload: routeLayout.encode(
      {
        family: addressFamily[dst.family],
        dstLength: dst.length,
        table: inHeader(table),
        protocol: route.protocol ?? (isNew ? RouteProtocol.Boot : 0),
        scope,
        type: isNew ? RTN_UNICAST : 0,
        flags: route.onlink ? RTNH_F_ONLINK : 0,
      },
      {
        table,
        dst: dst.length > 0 ? dst.first : undefined,
        gw,
        link,
        src,
        priority,
        metrics: mtu || advmss ? { mtu, advmss } : undefined,
      },
    ),
    names: routeLayout,
  };
}

/** The field in the structure has room for table numbers below 256. */
function inHeader(table: number): number {
  return table < 256 ? table : 0;
}

function nameOf(verb: string, { dst, gw }: RouteSettings): string {
  return `${verb} route to ${dst}${gw ? ` via ${gw}` : ''}`;
}
