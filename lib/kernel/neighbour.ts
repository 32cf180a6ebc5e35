/**
 * Who is behind an address: neighbour entries, which map IP to MAC addresses, and the forwarding database of
 * a VXLAN interface, which maps MAC addresses to other hosts. Source: rtnetlink(7), linux/neighbour.h.
 */

import type { Address } from '../ip.ts';
import { attributes, layout } from '../netlink/attributes.ts';
import { Flag, type Request } from '../netlink/message.ts';
import { i32, struct, u8, u16 } from '../netlink/struct.ts';
import { addressFamily, ipAddress } from './family.ts';
import { macAddress } from './mac.ts';
import type { RouteSocket } from './route-socket.ts';

const RTM_NEWNEIGH = 28;
const RTM_DELNEIGH = 29;
const RTM_GETNEIGH = 30;
const AF_BRIDGE = 7;
const NTF_SELF = 0x02;
const NUD_PERMANENT = 0x80;

const neighbourLayout = layout(
  // struct ndmsg, with its padding.
  struct({ family: u8, pad1: u8, pad2: u16, link: i32, state: u16, flags: u8, type: u8 }),
  attributes({ address: [1, ipAddress, 'address'], mac: [2, macAddress, 'MAC address'] }),
);

/** A permanent entry of either kind. */
export interface Neighbour {
  /** Of the neighbour itself, or of the host behind which the MAC address is. */
  readonly address: Address;
  /** Lower case, colon-separated. */
  readonly mac: string;
}

/** Adds a permanent neighbour entry, or replaces one for the same address. @param label of the interface. */
export function setNeighbour(link: number, { address, mac }: Neighbour, label = `${link}`): Request {
  return {
    action: `set neighbour ${address} of interface "${label}"`,
    type: RTM_NEWNEIGH,
    flags: Flag.Create | Flag.Replace,
    payload: neighbourLayout.encode(
      { family: addressFamily[address.family], link, state: NUD_PERMANENT },
      { address, mac },
    ),
    names: neighbourLayout,
  };
}

/** Removes a neighbour entry. */
export function deleteNeighbour(link: number, { address }: Neighbour, label = `${link}`): Request {
  return {
    action: `remove neighbour ${address} of interface "${label}"`,
    type: RTM_DELNEIGH,
    flags: 0,
    payload: neighbourLayout.encode({ family: addressFamily[address.family], link }, { address }),
  };
}

/** Permanent neighbour entries of an interface, of both families. */
export function listNeighbours(socket: RouteSocket, link: number): Neighbour[] {
  return list(socket, link, 0, 'list neighbours');
}

/** Has a VXLAN interface send frames for a MAC address to a host, and to no other. */
export function setForwarding(link: number, { address, mac }: Neighbour, label = `${link}`): Request {
  return {
    action: `set the forwarding of ${mac} on interface "${label}" to ${address}`,
    type: RTM_NEWNEIGH,
    flags: Flag.Create | Flag.Replace,
    payload: neighbourLayout.encode(
      { family: AF_BRIDGE, link, state: NUD_PERMANENT, flags: NTF_SELF },
      { address, mac },
    ),
    names: neighbourLayout,
  };
}

/** Removes what {@link setForwarding} has set. */
export function deleteForwarding(link: number, { address, mac }: Neighbour, label = `${link}`): Request {
  return {
    action: `remove the forwarding of ${mac} on interface "${label}" to ${address}`,
    type: RTM_DELNEIGH,
    flags: 0,
    payload: neighbourLayout.encode({ family: AF_BRIDGE, link, flags: NTF_SELF }, { address, mac }),
  };
}

/**
 * Which MAC addresses a VXLAN interface sends to which hosts, by entries that were set rather than learned.
 */
export function listForwarding(socket: RouteSocket, link: number): Neighbour[] {
  return list(socket, link, AF_BRIDGE, 'list the forwarding database');
}

function list(socket: RouteSocket, link: number, family: number, action: string): Neighbour[] {
  const payload = neighbourLayout.header.encode({ family });
  return socket.dump({ action, type: RTM_GETNEIGH, flags: 0, payload }).flatMap((message) => {
    const header = neighbourLayout.header.decode(message.payload);
    if (header.link !== link || !(header.state & NUD_PERMANENT)) return [];
    // Entries of other families, such as multicast groups, are of neither kind.
    const isOfFamily = family !== 0 || Object.values<number>(addressFamily).includes(header.family);
    if (!isOfFamily) return [];
    const { address, mac } = neighbourLayout.decode(message.payload);
    return address && mac ? [{ address, mac }] : [];
  });
}
