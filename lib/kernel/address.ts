/** IP addresses of interfaces. Source: rtnetlink(7), linux/if_addr.h. */

import { Address, type Family, Prefix } from '../ip.ts';
import {
  Attributes,
  bytesAttr,
  concat,
  Flag,
  numberBytes,
  type Request,
  u32Attr,
  viewOf,
} from '../netlink/message.ts';
import type { RouteSocket } from './route-socket.ts';

const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const RTM_GETADDR = 22;
const IFA_ADDRESS = 1;
const IFA_LOCAL = 2;
const IFA_BROADCAST = 4;
const IFA_FLAGS = 8;

/** Flags of linux/if_addr.h. */
export const AddressFlag = {
  NoDad: 0x02,
  DadFailed: 0x08,
  Tentative: 0x40,
  Permanent: 0x80,
  NoPrefixRoute: 0x200,
} as const;

/** AF_INET and AF_INET6. */
export const addressFamily = { 4: 2, 6: 10 } as const;

/** An address of an interface. */
export interface InterfaceAddress {
  /** Index of the interface. */
  link: number;
  prefix: Prefix;
  flags: number;
  /** RT_SCOPE_*. */
  scope: number;
}

/** How an address is added. */
export interface AddAddressOptions {
  /** Use an IPv6 address at once, without asking the neighbours whether somebody has it already. */
  noDad?: boolean;
  /** Name of the interface, for messages. */
  label?: string;
}

/** Adds an address to an interface. */
export function addAddress(link: number, prefix: Prefix, options: AddAddressOptions = {}): Request {
  const { noDad = false, label = `${link}` } = options;
  const attributes = [];
  // As ip(8) and the reference plugins do, IPv4 subnets of more than two addresses get their broadcast address.
  if (prefix.family === 4 && prefix.length < 31)
    attributes.push(bytesAttr(IFA_BROADCAST, prefix.last.toBytes()));
  if (prefix.family === 6 && noDad) attributes.push(u32Attr(IFA_FLAGS, AddressFlag.NoDad));
  return {
    action: `add address ${prefix} to interface "${label}"`,
    type: RTM_NEWADDR,
    flags: Flag.Create | Flag.Exclusive,
    payload: addressPayload(link, prefix, attributes),
  };
}

/** Removes an address from an interface. */
export function deleteAddress(link: number, prefix: Prefix, label = `${link}`): Request {
  return {
    action: `remove address ${prefix} from interface "${label}"`,
    type: RTM_DELADDR,
    flags: 0,
    payload: addressPayload(link, prefix, []),
  };
}

/** Addresses of one interface, or of every interface of the namespace. */
export function listAddresses(socket: RouteSocket, link?: number, family?: Family): InterfaceAddress[] {
  const header = numberBytes(8, (view) => {
    view.setUint8(0, family ? addressFamily[family] : 0);
    view.setUint32(4, link ?? 0, true);
  });
  return socket
    .dump({ action: 'list addresses', type: RTM_GETADDR, flags: 0, payload: header })
    .flatMap(({ payload }) => readAddress(payload) ?? [])
    .filter((address) => link === undefined || address.link === link);
}

function readAddress(payload: Uint8Array): InterfaceAddress | undefined {
  const view = viewOf(payload);
  const attributes = new Attributes(payload.subarray(8));
  // On a point-to-point interface IFA_ADDRESS is the far end, and IFA_LOCAL ours.
  const bytes = attributes.bytes(IFA_LOCAL) ?? attributes.bytes(IFA_ADDRESS);
  if (!bytes || (bytes.length !== 4 && bytes.length !== 16)) return undefined;
  return {
    link: view.getUint32(4, true),
    prefix: new Prefix(Address.fromBytes(bytes), view.getUint8(1)),
    flags: attributes.u32(IFA_FLAGS) ?? view.getUint8(2),
    scope: view.getUint8(3),
  };
}

/** struct ifaddrmsg and attributes. */
function addressPayload(link: number, prefix: Prefix, more: readonly Uint8Array[]): Uint8Array {
  const header = numberBytes(8, (view) => {
    view.setUint8(0, addressFamily[prefix.family]);
    view.setUint8(1, prefix.length);
    view.setUint32(4, link, true);
  });
  const bytes = prefix.address.toBytes();
  return concat([header, bytesAttr(IFA_LOCAL, bytes), bytesAttr(IFA_ADDRESS, bytes), ...more]);
}
