/** Network interfaces. Sources: rtnetlink(7), linux/if_link.h. */

import { attributes, container, layout, repeated, text, word } from '../netlink/attributes.ts';
import { isKernelError } from '../netlink/libc.ts';
import { type AttributeNames, Flag, type Message, type Request } from '../netlink/message.ts';
import { i32, struct, u8, u16, u32 } from '../netlink/struct.ts';
import { macAddress } from './mac.ts';
import type { Netns } from './netns.ts';
import type { RouteSocket } from './route-socket.ts';

/** Types of messages about interfaces. */
export const LinkMessage = { New: 16, Delete: 17, Get: 18, Set: 19 } as const;

/** struct ifinfomsg, which precedes the attributes. */
export const linkHeader = struct({ family: u8, type: u16, index: i32, flags: u32, change: u32 });

const linkInfo = attributes({
  kind: [1, word],
  data: [2, container()],
  portKind: [4, word],
  portData: [5, container()],
});

/** A message about an interface. The content of a container is described where it is used. */
export const linkLayout = layout(
  linkHeader,
  attributes({
    mac: [1, macAddress, 'MAC address'],
    name: [3, text, 'name'],
    mtu: [4, u32, 'MTU', [68, 65_535]],
    parent: [5, u32],
    master: [10, u32],
    port: [12, container()],
    txQueueLength: [13, u32, 'transmit queue length'],
    operState: [16, u8],
    info: [18, linkInfo],
    alias: [20, word, 'alias'],
    familySettings: [26, container()],
    group: [27, u32, 'group'],
    netns: [28, u32],
    extended: [29, u32],
    parentNetnsId: [37, i32],
    properties: [52, attributes({ altNames: [53, repeated(text)] })],
    altName: [53, text],
  }),
);

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
  /** Whether it was set so explicitly; a packet capture also uses that mode, but does not set this flag. */
  promisc: boolean;
  operState: (typeof operStates)[number];
  /** Kind of virtual interface, such as "veth"; "" for a physical one. */
  kind: string;
  /** Attributes of the kind. */
  data: Uint8Array | undefined;
  /** Kind of the master it is a port of, such as "bridge"; "" when it has none. */
  portKind: string;
  /** Attributes as a port of its master, such as hairpin mode. */
  portData: Uint8Array | undefined;
  /** Index of the bridge or VRF it is in. */
  master: number | undefined;
  /** Index of the peer or of the interface below, in the namespace `parentNetnsId` names if that is set. */
  parent: number | undefined;
  parentNetnsId: number | undefined;
  txQueueLength: number;
  alias: string;
  /** Alternative names, which may be longer than names. */
  altNames: readonly string[];
}

/** What can be set on any interface, at creation or later. */
export interface LinkSettings {
  name?: string;
  /** Colon-separated. */
  mac?: string;
  /** Bytes; 0 leaves it to the kernel. */
  mtu?: number;
  up?: boolean;
  /** Index of the master; 0 removes it from its master. */
  master?: number;
  /** Namespace it lives in, or is moved to. */
  netns?: Netns;
  /** Index of the interface below. */
  parent?: number;
  txQueueLength?: number;
  alias?: string;
  /** Group of interfaces that it is in; 0 by default. */
  group?: number;
  promisc?: boolean;
  allMulti?: boolean;
  arp?: boolean;
}

/** A kind of interface to create: its name and its own attributes. */
export interface LinkKind {
  readonly kind: string;
  readonly data?: Uint8Array;
  /** Names of these attributes, for error messages. */
  readonly names?: AttributeNames;
}

/** Creates an interface. */
export function createLink({ kind, data, names }: LinkKind, settings: LinkSettings): Request {
  return {
    action: `create ${kind} interface "${settings.name ?? ''}"`,
    type: LinkMessage.New,
    flags: Flag.Create | Flag.Exclusive,
    payload: encodeLink(0, settings, { kind, data }),
    names: linkLayout,
    innerNames: names,
  };
}

/** Changes an interface. @param label its name, for error messages. */
export function setLink(index: number, settings: LinkSettings, label = `${index}`): Request {
  return {
    action: describe(settings, label),
    type: LinkMessage.Set,
    flags: 0,
    payload: encodeLink(index, settings),
    names: linkLayout,
  };
}

/** Deletes an interface. @param index 0 for one that is known by its name alone. @param label its name. */
export function deleteLink(index: number, label = `${index}`): Request {
  return {
    action: `delete interface "${label}"`,
    type: LinkMessage.Delete,
    flags: 0,
    payload: encodeLink(index, index === 0 ? { name: label } : {}),
  };
}

/** Bytes that a name may have; what is longer can only be an alternative name (IFNAMSIZ of linux/if.h). */
const longestName = 15;

/**
 * Finds an interface by its name, an alternative name or its index.
 * @returns undefined when it does not exist.
 * @throws NetlinkError
 */
export function getLink(socket: RouteSocket, which: string | number): Link | undefined {
  const request: Request = {
    action: `look up interface "${which}"`,
    type: LinkMessage.Get,
    flags: 0,
    payload: typeof which === 'number' ? encodeLink(which, {}) : encodeName(which),
  };
  try {
    const reply = socket.execute(request)[0]?.[0];
    return reply && readLink(reply);
  } catch (error) {
    // No interface can have a name that is out of range.
    if (isKernelError(error, 'ENODEV', 'ERANGE')) return undefined;
    throw error;
  }
}

function encodeName(name: string): Uint8Array {
  if (Buffer.byteLength(name) <= longestName) return encodeLink(0, { name });
  return linkLayout.encode({ index: 0 }, { altName: name });
}

/**
 * Finds an interface by name or index.
 * @throws Error when it does not exist.
 */
export function requireLink(socket: RouteSocket, which: string | number): Link {
  const link = getLink(socket, which);
  if (link) return link;
  throw new Error(`Interface "${which}" does not exist`);
}

/** Every interface of the namespace. */
export function listLinks(socket: RouteSocket): Link[] {
  return socket
    .dump({ action: 'list interfaces', type: LinkMessage.Get, flags: 0, payload: encodeLink(0, {}) })
    .map(readLink);
}

/**
 * The ports of a bridge, or the members of a VRF. The kernel leaves out all others, so the list is short and
 * rarely interrupted; before Linux 6.9, an interrupted list may lack entries.
 */
export function listPorts(socket: RouteSocket, master: number): Link[] {
  const payload = encodeLink(0, { master });
  return socket
    .dump({ action: 'list ports', type: LinkMessage.Get, flags: 0, payload })
    .map(readLink)
    .filter((link) => link.master === master);
}

/** Reads what the kernel says of an interface. @throws RangeError when the message is truncated. */
function readLink({ payload }: Message): Link {
  const { index, flags } = linkHeader.decode(payload);
  const { info = {}, ...link } = linkLayout.decode(payload);
  return {
    index,
    name: link.name ?? '',
    mac: link.mac ?? '',
    mtu: link.mtu ?? 0,
    flags,
    up: (flags & LinkFlag.Up) !== 0,
    promisc: (flags & LinkFlag.Promisc) !== 0,
    operState: operStates[link.operState ?? 0] ?? 'unknown',
    kind: info.kind ?? '',
    data: info.data,
    portKind: info.portKind ?? '',
    portData: info.portData,
    master: link.master,
    parent: link.parent,
    parentNetnsId: link.parentNetnsId,
    txQueueLength: link.txQueueLength ?? 0,
    alias: link.alias ?? '',
    altNames: link.properties?.altNames ?? [],
  };
}

/** A message that creates, changes, finds or deletes an interface. */
export function encodeLink(
  index: number,
  settings: LinkSettings,
  info?: { kind: string; data: Uint8Array | undefined },
): Uint8Array {
  const { name, mac, mtu, master, netns, parent, txQueueLength, alias, group } = settings;
  return linkLayout.encode(
    { index, ...flagsOf(settings) },
    { name, mac, mtu: mtu || undefined, master, parent, netns: netns?.fd, txQueueLength, alias, group, info },
  );
}

/** Flags to set, and which flags are to change. */
function flagsOf({ up, promisc, allMulti, arp }: LinkSettings): { flags: number; change: number } {
  let flags = 0;
  let change = 0;
  const set = (bit: number, value: boolean | undefined) => {
    if (value === undefined) return;
    change |= bit;
    if (value) flags |= bit;
  };
  set(LinkFlag.Up, up);
  set(LinkFlag.Promisc, promisc);
  set(LinkFlag.AllMulti, allMulti);
  set(LinkFlag.NoArp, arp === undefined ? undefined : !arp);
  return { flags, change };
}

/** What is done to an interface, as in `bring up interface "eth0"` or `set MTU 1400 of interface "eth0"`. */
function describe(settings: LinkSettings, label: string): string {
  const keys = (Object.keys(settings) as (keyof LinkSettings)[]).filter((key) => settings[key] !== undefined);
  if (keys.length === 1 && keys[0] === 'up')
    return `bring ${settings.up ? 'up' : 'down'} interface "${label}"`;
  const words = keys.map((key) => {
    const value = settings[key];
    if (key === 'up') return value ? 'the state "up"' : 'the state "down"';
    if (key === 'netns' || key === 'master' || key === 'parent') return `the ${wordFor[key]}`;
    return `${wordFor[key]} ${JSON.stringify(value)}`;
  });
  return `set ${words.join(' and ')} of interface "${label}"`;
}

const wordFor: Record<Exclude<keyof LinkSettings, 'up'>, string> = {
  name: 'name',
  mac: 'MAC address',
  mtu: 'MTU',
  master: 'master',
  netns: 'network namespace',
  parent: 'parent',
  txQueueLength: 'transmit queue length',
  alias: 'alias',
  group: 'group',
  promisc: 'promiscuous mode',
  allMulti: 'all-multicast mode',
  arp: 'ARP',
};
