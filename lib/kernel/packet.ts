/** Packets straight onto a link, below IP. Sources: packet(7), RFC 1071. */

import { libc } from '../netlink/libc.ts';
import { numberBytes } from '../netlink/message.ts';
import type { Netns } from './netns.ts';

const AF_PACKET = 17;
const SOCK_DGRAM_CLOEXEC = 2 | 0x80000;

/** Protocols of linux/if_ether.h. */
export const EtherType = { IPv4: 0x0800, ARP: 0x0806, IPv6: 0x86dd } as const;

/** Broadcast MAC address. */
export const broadcastMac: Uint8Array = new Uint8Array(6).fill(0xff);

/**
 * Opens a socket that sends and receives packets of a protocol on one link, without the Ethernet header.
 * @param link its index in the namespace.
 * @returns the descriptor, which the caller closes.
 */
export function openPacketSocket(netns: Netns, link: number, protocol: number): number {
  return netns.run(() => {
    const networkOrder = ((protocol & 0xff) << 8) | (protocol >> 8);
    const fd = libc('open a packet socket', 'socket', AF_PACKET, SOCK_DGRAM_CLOEXEC, networkOrder);
    const address = packetAddress(link, protocol, new Uint8Array(6));
    libc('bind a packet socket to its link', 'bind', fd, address, address.length);
    return fd;
  });
}

/** Sends a packet. @param to MAC address. */
export function sendPacket(
  fd: number,
  link: number,
  protocol: number,
  to: Uint8Array,
  packet: Uint8Array,
): void {
  const address = packetAddress(link, protocol, to);
  libc('send a packet', 'sendto', fd, packet, packet.length, 0, address, address.length);
}

/** The Internet checksum. */
export function checksum(data: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < data.length; i += 2) sum += (data[i]! << 8) | (data[i + 1] ?? 0);
  while (sum >> 16) sum = (sum & 0xffff) + (sum >> 16);
  return ~sum & 0xffff;
}

/** struct sockaddr_ll. */
function packetAddress(link: number, protocol: number, mac: Uint8Array): Uint8Array {
  const out = numberBytes(20, (view) => {
    view.setUint16(0, AF_PACKET, true);
    view.setUint16(2, protocol);
    view.setInt32(4, link, true);
    view.setUint8(11, mac.length);
  });
  out.set(mac, 12);
  return out;
}
