/** Routes. Source: rtnetlink(7), linux/rtnetlink.h. */

import { Address, type Family, Prefix } from '../ip.ts';
import {
  type Attribute,
  Attributes,
  bytesAttr,
  concat,
  Flag,
  listAttributes,
  nestedAttr,
  numberBytes,
  type Request,
  u32Attr,
  viewOf,
} from '../netlink/message.ts';
import { addressFamily } from './address.ts';
import type { RouteSocket } from './route-socket.ts';

const RTM_NEWROUTE = 24;
const RTM_DELROUTE = 25;
const RTM_GETROUTE = 26;
const RTA_DST = 1;
const RTA_OIF = 4;
const RTA_GATEWAY = 5;
const RTA_PRIORITY = 6;
const RTA_PREFSRC = 7;
const RTA_METRICS = 8;
const RTA_MULTIPATH = 9;
const RTA_CACHEINFO = 12;
const RTA_TABLE = 15;
const RTAX_MTU = 2;
const RTAX_ADVMSS = 8;
const RTN_UNICAST = 1;
const RTNH_F_ONLINK = 4;

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
  /** Take the gateway for reachable over the interface, whatever its addresses say. */
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
  hops: { link: number; gw: Address | undefined; weight: number }[];
  /** The route in the kernel's own words, with what the fields above leave out. */
  payload: Uint8Array;
}

/**
 * Adds a route. One that is there already with the same destination, metric and gateway is an error (EEXIST), but a
 * second IPv6 gateway makes a multipath route.
 */
export function addRoute(route: RouteSettings): Request {
  return routeRequest('add', RTM_NEWROUTE, Flag.Create, route);
}

/** Adds a route, in place of one with the same destination and metric if there is one. */
export function replaceRoute(route: RouteSettings): Request {
  return routeRequest('replace', RTM_NEWROUTE, Flag.Create | Flag.Replace, route);
}

/** Removes the first route that fits. */
export function deleteRoute(route: RouteSettings): Request {
  return routeRequest('remove', RTM_DELROUTE, 0, { scope: RouteScope.Nowhere, ...route });
}

/** Adds a route with everything that the kernel knows of it, in place of one with the same destination and metric. @param table by default its own. */
export function copyRoute(route: Route, table = route.table): Request {
  return rawRouteRequest('copy', RTM_NEWROUTE, Flag.Create | Flag.Replace, route, table);
}

/** Removes exactly this route. */
export function removeRoute(route: Route): Request {
  return rawRouteRequest('remove', RTM_DELROUTE, 0, route, route.table);
}

/** Routes, by default all of them. */
export function listRoutes(
  socket: RouteSocket,
  filter: { family?: Family; link?: number; table?: number } = {},
): Route[] {
  const payload = numberBytes(12, (view) =>
    view.setUint8(0, filter.family ? addressFamily[filter.family] : 0),
  );
  const attributes = [
    ...(filter.table !== undefined ? [u32Attr(RTA_TABLE, filter.table)] : []),
    ...(filter.link !== undefined ? [u32Attr(RTA_OIF, filter.link)] : []),
  ];
  // The kernel filters by table and interface only when it is told the family.
  const request = {
    action: 'list routes',
    type: RTM_GETROUTE,
    flags: 0,
    payload: filter.family ? concat([payload, ...attributes]) : payload,
  };
  let messages: ReturnType<RouteSocket['dump']>;
  try {
    messages = socket.dump(request);
  } catch (error) {
    // A table that does not exist has no routes.
    if (filter.table !== undefined && (error as { code?: string }).code === 'ENOENT') return [];
    throw error;
  }
  return messages
    .flatMap((message) => readRoute(message.payload) ?? [])
    .filter(
      (route) =>
        (filter.table === undefined || route.table === filter.table) &&
        (filter.link === undefined ||
          route.link === filter.link ||
          route.hops.some((hop) => hop.link === filter.link)),
    );
}

/**
 * The route that a packet to an address would take.
 * @throws NetlinkError ENETUNREACH when there is none.
 */
export function lookUpRoute(socket: RouteSocket, to: Address): Route | undefined {
  const header = numberBytes(12, (view) => {
    view.setUint8(0, addressFamily[to.family]);
    view.setUint8(1, to.family === 4 ? 32 : 128);
  });
  const reply = socket.execute({
    action: `look up the route to ${to}`,
    type: RTM_GETROUTE,
    flags: 0,
    payload: concat([header, bytesAttr(RTA_DST, to.toBytes())]),
  })[0]?.[0];
  return reply && readRoute(reply.payload);
}

function readRoute(payload: Uint8Array): Route | undefined {
  const view = viewOf(payload);
  const family =
    view.getUint8(0) === addressFamily[4] ? 4 : view.getUint8(0) === addressFamily[6] ? 6 : undefined;
  if (!family) return undefined;
  const attributes = new Attributes(payload.subarray(12));
  const address = (type: number) => {
    const bytes = attributes.bytes(type);
    return bytes && (bytes.length === 4 || bytes.length === 16) ? Address.fromBytes(bytes) : undefined;
  };
  const metrics = attributes.nested(RTA_METRICS);
  const gw = address(RTA_GATEWAY);
  const src = address(RTA_PREFSRC);
  const link = attributes.u32(RTA_OIF);
  return {
    family,
    dst: new Prefix(address(RTA_DST) ?? new Address(family, 0n), view.getUint8(1)),
    ...(gw && { gw }),
    ...(src && { src }),
    ...(link !== undefined && { link }),
    table: attributes.u32(RTA_TABLE) ?? view.getUint8(4),
    protocol: view.getUint8(5),
    scope: view.getUint8(6),
    type: view.getUint8(7),
    priority: attributes.u32(RTA_PRIORITY),
    mtu: metrics?.u32(RTAX_MTU),
    advmss: metrics?.u32(RTAX_ADVMSS),
    onlink: (view.getUint32(8, true) & RTNH_F_ONLINK) !== 0,
    hops: readHops(attributes.bytes(RTA_MULTIPATH)),
    payload,
  };
}

/** struct rtnexthop, one behind the other. */
function readHops(data: Uint8Array | undefined): Route['hops'] {
  const hops: Route['hops'] = [];
  for (let offset = 0; data && offset + 8 <= data.length; ) {
    const view = viewOf(data.subarray(offset));
    const length = view.getUint16(0, true);
    if (length < 8 || offset + length > data.length)
      throw new RangeError(
        `A next hop of ${length} bytes does not fit the ${data.length - offset} that are left`,
      );
    const gw = new Attributes(data.subarray(offset + 8, offset + length)).bytes(RTA_GATEWAY);
    hops.push({
      link: view.getInt32(4, true),
      gw: gw && Address.fromBytes(gw),
      weight: view.getUint8(3) + 1,
    });
    offset += (length + 3) & ~3;
  }
  return hops;
}

/** Repeats what the kernel said of a route, but for the table, and what it says of a route's state, which it does not take back. */
function rawRouteRequest(verb: string, type: number, flags: number, route: Route, table: number): Request {
  const header = route.payload.slice(0, 12);
  const view = viewOf(header);
  view.setUint8(4, table < 256 ? table : 0);
  view.setUint32(8, view.getUint32(8, true) & RTNH_F_ONLINK, true);
  const attributes = listAttributes(route.payload.subarray(12))
    .filter(([attribute]) => attribute !== RTA_TABLE && attribute !== RTA_CACHEINFO)
    .map(([attribute, value]) =>
      bytesAttr(attribute, attribute === RTA_MULTIPATH ? withoutHopState(value) : value),
    );
  return {
    action: `${verb} route to ${route.dst}${route.gw ? ` via ${route.gw}` : ''}`,
    type,
    flags,
    payload: concat([header, ...attributes, u32Attr(RTA_TABLE, table)]),
  };
}

/** struct rtnexthop: its third byte are flags. */
function withoutHopState(hops: Uint8Array): Uint8Array {
  const copy = hops.slice();
  for (let offset = 0; offset + 8 <= copy.length; offset += (viewOf(copy).getUint16(offset, true) + 3) & ~3)
    copy[offset + 2]! &= RTNH_F_ONLINK;
  return copy;
}

/** struct rtmsg and attributes. */
function routeRequest(verb: string, type: number, flags: number, route: RouteSettings): Request {
  const { dst, gw, link, src, scope = RouteScope.Universe, table = RouteTable.Main } = route;
  const header = numberBytes(12, (view) => {
    view.setUint8(0, addressFamily[dst.family]);
    view.setUint8(1, dst.length);
    view.setUint8(4, table < 256 ? table : 0);
    view.setUint8(5, type === RTM_DELROUTE ? (route.protocol ?? 0) : (route.protocol ?? RouteProtocol.Boot));
    view.setUint8(6, scope);
    view.setUint8(7, type === RTM_DELROUTE ? 0 : RTN_UNICAST);
    view.setUint32(8, route.onlink ? RTNH_F_ONLINK : 0, true);
  });
  const attributes: Attribute[] = [u32Attr(RTA_TABLE, table)];
  if (dst.length > 0) attributes.push(bytesAttr(RTA_DST, dst.first.toBytes()));
  if (gw) attributes.push(bytesAttr(RTA_GATEWAY, gw.toBytes()));
  if (link !== undefined) attributes.push(u32Attr(RTA_OIF, link));
  if (src) attributes.push(bytesAttr(RTA_PREFSRC, src.toBytes()));
  if (route.priority !== undefined) attributes.push(u32Attr(RTA_PRIORITY, route.priority));
  const metrics: Attribute[] = [];
  if (route.mtu) metrics.push(u32Attr(RTAX_MTU, route.mtu));
  if (route.advmss) metrics.push(u32Attr(RTAX_ADVMSS, route.advmss));
  if (metrics.length > 0) attributes.push(nestedAttr(RTA_METRICS, metrics));
  return {
    action: `${verb} route to ${dst}${gw ? ` via ${gw}` : ''}`,
    type,
    flags,
    payload: concat([header, ...attributes]),
  };
}
