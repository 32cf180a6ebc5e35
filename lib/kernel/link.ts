/** Network interfaces. Sources: rtnetlink(7), linux/if_link.h. */

import { isKernelError } from '../netlink/libc.ts';
import {
  type Attribute,
  Attributes,
  bytesAttr,
  concat,
  Flag,
  type Message,
  nestedAttr,
  numberBytes,
  type Request,
  stringAttr,
  u32Attr,
  viewOf,
} from '../netlink/message.ts';
import { NetlinkGroup, waitForEvent } from './events.ts';
import { formatMac, parseMac } from './mac.ts';
import type { Netns } from './netns.ts';
import type { RouteSocket } from './route-socket.ts';

const RTM_NEWLINK = 16;
export const RTM_DELLINK = 17;
export const RTM_GETLINK = 18;
export const RTM_SETLINK = 19;
export const AF_BRIDGE = 7;

const IFLA_ADDRESS = 1;
const IFLA_IFNAME = 3;
const IFLA_MTU = 4;
const IFLA_LINK = 5;
const IFLA_MASTER = 10;
const IFLA_TXQLEN = 13;
const IFLA_OPERSTATE = 16;
const IFLA_LINKINFO = 18;
const IFLA_IFALIAS = 20;
export const IFLA_AF_SPEC = 26;
const IFLA_NET_NS_FD = 28;
const IFLA_PROMISCUITY = 30;
const IFLA_LINK_NETNSID = 37;
const IFLA_INFO_KIND = 1;
const IFLA_INFO_DATA = 2;
const IFLA_INFO_SLAVE_KIND = 4;
const IFLA_INFO_SLAVE_DATA = 5;

/** Interface flags of linux/if.h. */
export const LinkFlag = {
  Up: 0x1,
  Loopback: 0x8,
  Running: 0x40,
  NoArp: 0x80,
  Promisc: 0x100,
  AllMulti: 0x200,
  Multicast: 0x1000,
  LowerUp: 0x10000,
} as const;

const operStates = ['unknown', 'notpresent', 'down', 'lowerlayerdown', 'testing', 'dormant', 'up'] as const;

/** An interface as the kernel has it. */
export interface Link {
  index: number;
  name: string;
  /** Lower case, colon-separated; "" where the interface has none. */
  mac: string;
  /** Bytes. */
  mtu: number;
  flags: number;
  up: boolean;
  operState: (typeof operStates)[number];
  /** Kind of virtual interface, such as "veth"; "" for a physical one. */
  kind: string;
  /** Attributes of the kind. */
  data: Attributes | undefined;
  /** Kind of the master it is a port of, such as "bridge"; "" when it is none. */
  portKind: string;
  /** Attributes as a port of its master, such as hairpin mode. */
  portData: Attributes | undefined;
  /** Index of the bridge or VRF it is in. */
  master: number | undefined;
  /** Index of the peer or of the interface below, in the namespace `parentNetnsId` names if that is set. */
  parent: number | undefined;
  parentNetnsId: number | undefined;
  /** How many want it promiscuous. */
  promiscuity: number;
  txQueueLength: number;
  alias: string;
}

/** What can be set on any interface, at creation or later. */
export interface LinkSettings {
  name?: string;
  /** Colon-separated. */
  mac?: string;
  /** Bytes; 0 leaves it to the kernel. */
  mtu?: number;
  up?: boolean;
  /** Index of the master; 0 takes it out. */
  master?: number;
  /** Namespace it lives in, or is moved to. */
  netns?: Netns;
  /** Index of the interface below. */
  parent?: number;
  txQueueLength?: number;
  alias?: string;
  promisc?: boolean;
  allMulti?: boolean;
  arp?: boolean;
}

/** A kind of interface to create: its name and its own attributes. */
export interface LinkKind {
  readonly kind: string;
  readonly data?: readonly Attribute[];
}

/** Creates an interface. */
export function createLink(kind: LinkKind, settings: LinkSettings): Request {
  const info = nestedAttr(IFLA_LINKINFO, [
    bytesAttr(IFLA_INFO_KIND, Buffer.from(kind.kind)),
    ...(kind.data ? [nestedAttr(IFLA_INFO_DATA, kind.data)] : []),
  ]);
  return {
    action: `create ${kind.kind} interface "${settings.name ?? ''}"`,
    type: RTM_NEWLINK,
    flags: Flag.Create | Flag.Exclusive,
    payload: linkPayload(0, settings, [info]),
  };
}

/** Changes an interface. @param label its name, for error messages. */
export function setLink(index: number, settings: LinkSettings, label = `${index}`): Request {
  return {
    action: `set ${describe(settings)} of interface "${label}"`,
    type: RTM_SETLINK,
    flags: 0,
    payload: linkPayload(index, settings),
  };
}

/** Deletes an interface. @param index 0 for one that is known by its name alone. @param label its name. */
export function deleteLink(index: number, label = `${index}`): Request {
  return {
    action: `delete interface "${label}"`,
    type: RTM_DELLINK,
    flags: 0,
    payload: linkPayload(index, index === 0 ? { name: label } : {}),
  };
}

/**
 * Finds an interface by name or index.
 * @returns undefined when there is none.
 * @throws NetlinkError
 */
export function getLink(socket: RouteSocket, which: string | number): Link | undefined {
  const request: Request = {
    action: `look up interface "${which}"`,
    type: RTM_GETLINK,
    flags: 0,
    payload: typeof which === 'number' ? linkPayload(which, {}) : linkPayload(0, { name: which }),
  };
  try {
    const reply = socket.execute(request)[0]?.[0];
    return reply && readLink(reply);
  } catch (error) {
    if (isKernelError(error, 'ENODEV')) return undefined;
    throw error;
  }
}

/**
 * Finds an interface by name or index.
 * @throws Error that says so when there is none.
 */
export function requireLink(socket: RouteSocket, which: string | number): Link {
  const link = getLink(socket, which);
  if (link) return link;
  throw new Error(`There is no interface "${which}"`);
}

/**
 * Waits until an interface passes frames.
 * @param socket of the namespace that the thread is in.
 * @returns false when it does not within two seconds.
 */
export function waitUntilUp(socket: RouteSocket, index: number): boolean {
  return waitForEvent(NetlinkGroup.Link, 2000, () => requireLink(socket, index).operState === 'up');
}

/** Every interface of the namespace. */
export function listLinks(socket: RouteSocket): Link[] {
  return socket
    .dump({ action: 'list interfaces', type: RTM_GETLINK, flags: 0, payload: linkPayload(0, {}) })
    .map(readLink);
}

/** Reads an RTM_NEWLINK message. @throws RangeError when it is torn. */
export function readLink(message: Message): Link {
  const view = viewOf(message.payload);
  const flags = view.getUint32(8, true);
  const attributes = new Attributes(message.payload.subarray(16));
  const info = attributes.nested(IFLA_LINKINFO);
  return {
    index: view.getInt32(4, true),
    name: attributes.string(IFLA_IFNAME) ?? '',
    mac: formatMac(attributes.bytes(IFLA_ADDRESS)),
    mtu: attributes.u32(IFLA_MTU) ?? 0,
    flags,
    up: (flags & LinkFlag.Up) !== 0,
    operState: operStates[attributes.u8(IFLA_OPERSTATE) ?? 0] ?? 'unknown',
    kind: info?.string(IFLA_INFO_KIND) ?? '',
    data: info?.nested(IFLA_INFO_DATA),
    portKind: info?.string(IFLA_INFO_SLAVE_KIND) ?? '',
    portData: info?.nested(IFLA_INFO_SLAVE_DATA),
    master: attributes.u32(IFLA_MASTER),
    parent: attributes.u32(IFLA_LINK),
    parentNetnsId: attributes.u32(IFLA_LINK_NETNSID),
    promiscuity: attributes.u32(IFLA_PROMISCUITY) ?? 0,
    txQueueLength: attributes.u32(IFLA_TXQLEN) ?? 0,
    alias: attributes.string(IFLA_IFALIAS) ?? '',
  };
}

/** struct ifinfomsg and attributes. */
export function linkPayload(
  index: number,
  settings: LinkSettings,
  more: readonly Attribute[] = [],
  family = 0,
): Uint8Array {
  const { name, mac, mtu, up, master, netns, parent, txQueueLength, alias, promisc, allMulti, arp } =
    settings;
  let flags = 0;
  let change = 0;
  const flag = (bit: number, value: boolean | undefined) => {
    if (value === undefined) return;
    change |= bit;
    if (value) flags |= bit;
  };
  flag(LinkFlag.Up, up);
  flag(LinkFlag.Promisc, promisc);
  flag(LinkFlag.AllMulti, allMulti);
  flag(LinkFlag.NoArp, arp === undefined ? undefined : !arp);
  const header = numberBytes(16, (view) => {
    view.setUint8(0, family);
    view.setInt32(4, index, true);
    view.setUint32(8, flags, true);
    view.setUint32(12, change, true);
  });
  const parts: Uint8Array[] = [header];
  if (name !== undefined) parts.push(stringAttr(IFLA_IFNAME, name));
  if (mac !== undefined) {
    const bytes = parseMac(mac);
    if (!bytes) throw new Error(`"${mac}" is not a MAC address, such as "0a:58:0a:01:00:05"`);
    parts.push(bytesAttr(IFLA_ADDRESS, bytes));
  }
  if (mtu) parts.push(u32Attr(IFLA_MTU, mtu));
  if (master !== undefined) parts.push(u32Attr(IFLA_MASTER, master));
  if (parent !== undefined) parts.push(u32Attr(IFLA_LINK, parent));
  if (netns !== undefined) parts.push(u32Attr(IFLA_NET_NS_FD, netns.fd));
  if (txQueueLength !== undefined) parts.push(u32Attr(IFLA_TXQLEN, txQueueLength));
  if (alias !== undefined) parts.push(bytesAttr(IFLA_IFALIAS, Buffer.from(alias)));
  return concat([...parts, ...more]);
}

function describe(settings: LinkSettings): string {
  const words = Object.entries(settings)
    .filter(([, value]) => value !== undefined)
    .map(([key, value]) => {
      if (key === 'up') return value ? 'the state "up"' : 'the state "down"';
      if (key === 'netns') return 'the network namespace';
      return `${key} ${JSON.stringify(value)}`;
    });
  return words.join(', ') || 'nothing';
}
