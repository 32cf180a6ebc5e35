/** Packets sent and received directly on a link, below IP. Sources: packet(7), RFC 1071. */

import { closeSync } from 'node:fs';
import { libc } from '../netlink/libc.ts';
import { be16, byteArray, i32, struct, u8, u16 } from '../netlink/struct.ts';
import type { Netns } from './netns.ts';

const AF_PACKET = 17;
const SOCK_DGRAM_CLOEXEC = 2 | 0x80000;

const sockaddrLl = struct({
  family: u16,
  protocol: be16,
  link: i32,
  hardwareType: u16,
  packetType: u8,
  addressLength: u8,
  address: byteArray(8),
});

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
    try {
      libc('bind a packet socket to its link', 'bind', fd, address, address.length);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
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

function packetAddress(link: number, protocol: number, address: Uint8Array): Uint8Array {
  return sockaddrLl.encode({ family: AF_PACKET, protocol, link, addressLength: address.length, address });
}
