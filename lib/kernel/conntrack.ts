/** Connection tracking. Sources: linux/netfilter/nfnetlink.h, linux/netfilter/nfnetlink_conntrack.h. */

import { Address, type Family } from '../ip.ts';
import { isKernelError } from '../netlink/libc.ts';
import {
  type Attribute,
  Attributes,
  bytesAttr,
  concat,
  nestedAttr,
  type Request,
} from '../netlink/message.ts';
import { NetlinkProtocol, NetlinkSocket } from '../netlink/socket.ts';
import { be16, u32 } from '../netlink/struct.ts';
import { listAddresses } from './address.ts';
import { addressFamily } from './family.ts';
import { openRouteSocket } from './route-socket.ts';

const NFNL_SUBSYS_CTNETLINK = 1;
const IPCTNL_MSG_CT_GET = 1;
const IPCTNL_MSG_CT_DELETE = 2;
const CTA_TUPLE_ORIG = 1;
const CTA_TUPLE_REPLY = 2;
const CTA_ID = 12;
const CTA_FILTER = 25;
const CTA_TUPLE_IP = 1;
const CTA_TUPLE_PROTO = 2;
const CTA_IP_V4_SRC = 1;
const CTA_IP_V4_DST = 2;
const CTA_IP_V6_SRC = 3;
const CTA_IP_V6_DST = 4;
const CTA_PROTO_NUM = 1;
const CTA_PROTO_DST_PORT = 3;
const CTA_FILTER_ORIG_FLAGS = 1;
const CTA_FILTER_F_CTA_PROTO_NUM = 1 << 3;
const CTA_FILTER_F_CTA_PROTO_DST_PORT = 1 << 5;
const IPPROTO_UDP = 17;
/** What a destination port begins with: the length and type of its attribute. */
const portHeader = Buffer.from(portAttr(0).subarray(0, 4));

/** A port of the host whose UDP traffic goes elsewhere now, or nowhere. */
export interface StalePort {
  family: Family;
  /** Port on the host. */
  port: number;
  /** Address on the host; any of the host's when left out. */
  address?: Address | undefined;
  /** Where it goes now: connections that go there already are left alone. */
  now?: Address | undefined;
  /** Where it went: connections that go elsewhere are left alone. */
  was?: Address | undefined;
}

/**
 * Makes the kernel forget UDP connections to ports of the host whose mapping has changed: it would go on
 * sending their packets where they went before. Connections through the host, or to other ports, are not
 * touched.
 * @throws KernelError of code EINVAL, EOPNOTSUPP or EPROTONOSUPPORT when the kernel does not support this at
 *   all.
 */
export function forgetUdp(ports: readonly StalePort[]): void {
  if (ports.length === 0) return;
  using socket = new NetlinkSocket(NetlinkProtocol.Netfilter);
  for (const family of [4, 6] as const) {
    const wanted = ports.filter((port) => port.family === family);
    if (wanted.length === 0) continue;
    const candidates = findConnections(socket, family, new Set(wanted.map(({ port }) => port))).filter(
      (connection) => wanted.some((port) => isStale(connection, port)),
    );
    if (candidates.length === 0) continue;
    using routes = openRouteSocket();
    const local = new Set(listAddresses(routes, undefined, family).map(({ prefix }) => `${prefix.address}`));
    for (const connection of candidates) {
      const { tuple, id, destination } = connection;
      // What went to the container was meant for the host, some of whose addresses may exist only as local
      // routes.
      const went = wanted.some(
        (port) => port.was && !port.was.equals(destination) && isStale(connection, port),
      );
      if (!went && !local.has(`${destination}`) && !destination.isLoopback) continue;
      const outcome = socket.attempt(
        request(`forget a UDP connection to ${destination}`, IPCTNL_MSG_CT_DELETE, family, [
          bytesAttr(CTA_TUPLE_ORIG | 0x8000, tuple),
          ...(id ? [bytesAttr(CTA_ID, id)] : []),
        ]),
      )[0];
      // It may have timed out by itself.
      if (outcome instanceof Error && !isKernelError(outcome, 'ENOENT')) throw outcome;
    }
  }
}

interface Connection {
  /** Original tuple as the kernel wrote it. */
  tuple: Uint8Array;
  id: Uint8Array | undefined;
  destination: Address;
  port: number;
  /** Who answers. */
  server: Address | undefined;
}

function isStale(connection: Connection, { port, address, now, was }: StalePort): boolean {
  return (
    connection.port === port &&
    (!address || address.equals(connection.destination)) &&
    !now?.equals(connection.server) &&
    (!was || was.equals(connection.server))
  );
}

/**
 * The UDP connections to some ports. A host may track hundreds of thousands of others: the kernel leaves out
 * most of these, and objects are made only of those that may be wanted.
 */
function findConnections(socket: NetlinkSocket, family: Family, ports: ReadonlySet<number>): Connection[] {
  const found: Connection[] = [];
  const list = request('list tracked connections', IPCTNL_MSG_CT_GET, family, filterFor(ports));
  socket.search(list, (data, from, to) => {
    const message = data.subarray(from, to);
    if (mayBeTo(message, ports)) found.push(...readConnection(new Uint8Array(message), family));
  });
  return found;
}

/** Has the kernel list only UDP, and only one port if that is all. Before Linux 5.8, it lists everything. */
function filterFor(ports: ReadonlySet<number>): Attribute[] {
  const one = ports.size === 1 ? [...ports] : [];
  const flags = CTA_FILTER_F_CTA_PROTO_NUM | (one.length > 0 ? CTA_FILTER_F_CTA_PROTO_DST_PORT : 0);
  const protocol = bytesAttr(CTA_PROTO_NUM, Uint8Array.of(IPPROTO_UDP));
  return [
    nestedAttr(CTA_TUPLE_ORIG, [nestedAttr(CTA_TUPLE_PROTO, [protocol, ...one.map(portAttr)])]),
    nestedAttr(CTA_FILTER, [bytesAttr(CTA_FILTER_ORIG_FLAGS, u32.encode(flags))]),
  ];
}

function portAttr(port: number): Attribute {
  return bytesAttr(CTA_PROTO_DST_PORT, be16.encode(port));
}

/** Looks for one of the ports among the bytes. */
function mayBeTo(message: Buffer, ports: ReadonlySet<number>): boolean {
  const last = message.length - portHeader.length - be16.size;
  for (let at = message.indexOf(portHeader); at >= 0 && at <= last; at = message.indexOf(portHeader, at + 1))
    if (ports.has(message.readUInt16BE(at + portHeader.length))) return true;
  return false;
}

/** @returns nothing for what is not UDP. */
function readConnection(payload: Uint8Array, family: Family): Connection[] {
  const attributes = new Attributes(payload.subarray(4));
  const tuple = attributes.bytes(CTA_TUPLE_ORIG);
  const original = attributes.nested(CTA_TUPLE_ORIG);
  const proto = original?.nested(CTA_TUPLE_PROTO);
  if (!tuple || proto?.u8(CTA_PROTO_NUM) !== IPPROTO_UDP) return [];
  const [source, target] = family === 4 ? [CTA_IP_V4_SRC, CTA_IP_V4_DST] : [CTA_IP_V6_SRC, CTA_IP_V6_DST];
  const destination = original?.nested(CTA_TUPLE_IP)?.bytes(target);
  const server = attributes.nested(CTA_TUPLE_REPLY)?.nested(CTA_TUPLE_IP)?.bytes(source);
  if (!destination) return [];
  return [
    {
      tuple,
      id: attributes.bytes(CTA_ID),
      destination: Address.fromBytes(destination),
      port: proto.be16(CTA_PROTO_DST_PORT) ?? 0,
      server: server && Address.fromBytes(server),
    },
  ];
}

/** struct nfgenmsg and attributes. */
function request(
  action: string,
  type: number,
  family: Family,
  attributes: readonly Uint8Array[] = [],
): Request {
  return {
    action,
    type: (NFNL_SUBSYS_CTNETLINK << 8) | type,
    flags: 0,
    payload: concat([Uint8Array.of(addressFamily[family], 0, 0, 0), ...attributes]),
  };
}
