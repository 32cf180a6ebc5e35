/**
 * How a client without an address speaks: IPv4 and ARP packets straight on the link. Once it has one, it uses
 * the kernel's UDP to speak to its server. Sources: packet(7), udp(7), RFC 791, RFC 768, RFC 826, RFC 5227
 * (address probes).
 */

import { closeSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import { Address } from '../../lib/ip.ts';
import { listAddresses } from '../../lib/kernel/address.ts';
import { msSinceBoot } from '../../lib/kernel/boot.ts';
import type { Netns } from '../../lib/kernel/netns.ts';
import { broadcastMac, checksum, EtherType, openPacketSocket, sendPacket } from '../../lib/kernel/packet.ts';
import { openRouteSocket } from '../../lib/kernel/route-socket.ts';
import { isKernelError, libc } from '../../lib/netlink/libc.ts';
import { numberBytes } from '../../lib/netlink/message.ts';

const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 2 | 0x80000;
const SOL_SOCKET = 1;
const SO_REUSEADDR = 2;
const SO_BROADCAST = 6;
const SO_BINDTODEVICE = 25;
const MSG_DONTWAIT = 0x40;
const IPPROTO_UDP = 17;
const SIOCOUTQ = 0x5411;
const clientPort = 68;
const serverPort = 67;
/**
 * How often a socket is polled for an answer, in milliseconds: Node.js has no way to wait for one that it did
 * not open.
 */
const pollInterval = 10;
/** How many packets are read before the rest of the process has its turn: there may be no end of them. */
const mostAtOnce = 64;
/** How long the holder of an address has to answer, in milliseconds. */
const probeTime = 250;

/** How long a message may take to leave the interface, in milliseconds. */
const drainTime = 500;

/** The interface that a client speaks on. */
export interface ClientLink {
  netns: Netns;
  index: number;
  name: string;
  mac: Uint8Array;
}

/** Something that DHCP messages can be sent with and received from. */
export interface Channel {
  send(message: Uint8Array): void;
  /** The next message that has arrived, empty for a packet that is not one; undefined when nothing has. */
  receive(): Uint8Array | undefined;
  /**
   * Waits until what was sent has left the interface: the kernel may have to find the receiver's MAC address
   * first.
   */
  drain(): Promise<void>;
  close(): void;
}

const unspecified = Address.parse('0.0.0.0');
const broadcast = Address.parse('255.255.255.255');

/**
 * Sends to everybody on the link, in frames of its own, for which the interface needs no address.
 * @param from address of the sender. @param to address of the receiver.
 */
export function openBroadcastChannel(link: ClientLink, from = unspecified, to = broadcast): Channel {
  const fd = openPacketSocket(link.netns, link.index, EtherType.IPv4);
  return {
    send: (message) => sendPacket(fd, link.index, EtherType.IPv4, broadcastMac, ipPacket(message, from, to)),
    receive() {
      const packet = read(fd);
      return packet && (dhcpPayload(packet) ?? new Uint8Array());
    },
    drain: () => drained(fd),
    close: () => closeSync(fd),
  };
}

/** Speaks from the address that the client has to one server. */
export function openAddressChannel(link: ClientLink, own: Address, server: Address): Channel {
  const fd = openUdpSocket(link, own);
  let broadcasts: number;
  try {
    // Servers refuse by broadcast (RFC 2131, section 4.1), which a socket bound to one address does not get.
    broadcasts = openUdpSocket(link, unspecified);
  } catch (error) {
    closeSync(fd);
    throw error;
  }
  const to = inetAddress(server, serverPort);
  return {
    send: (message) =>
      void libc('send a DHCP message', 'sendto', fd, message, message.length, 0, to, to.length),
    receive: () => read(fd) ?? read(broadcasts),
    drain: () => drained(fd),
    close: () => {
      closeSync(fd);
      closeSync(broadcasts);
    },
  };
}

/** A socket of the interface for one of its addresses; for all of them and for broadcasts, if unspecified. */
function openUdpSocket(link: ClientLink, own: Address): number {
  return link.netns.run(() => {
    const socket = libc('open a UDP socket', 'socket', AF_INET, SOCK_DGRAM_CLOEXEC, 0);
    try {
      const on = numberBytes(4, (view) => view.setInt32(0, 1, true));
      for (const option of [SO_REUSEADDR, SO_BROADCAST])
        libc('prepare a UDP socket', 'setsockopt', socket, SOL_SOCKET, option, on, 4);
      const device = Buffer.from(`${link.name}\0`);
      libc(
        'bind a UDP socket to the interface',
        'setsockopt',
        socket,
        SOL_SOCKET,
        SO_BINDTODEVICE,
        device,
        device.length,
      );
      const from = inetAddress(own, clientPort);
      libc(`bind a UDP socket to ${own}`, 'bind', socket, from, from.length);
      return socket;
    } catch (error) {
      closeSync(socket);
      throw error;
    }
  });
}

/** Tells whether an interface has an address. */
export function hasAddress({ netns, index }: ClientLink, address: Address): boolean {
  using socket = openRouteSocket(netns);
  return listAddresses(socket, index).some(({ prefix }) => prefix.address.equals(address));
}

async function drained(fd: number): Promise<void> {
  const queued = new Uint8Array(4);
  for (const end = msSinceBoot() + drainTime; msSinceBoot() < end; await sleep(pollInterval)) {
    libc('ask what has not been sent yet', 'ioctl', fd, SIOCOUTQ, queued);
    if (queued.every((byte) => byte === 0)) return;
  }
}

/**
 * Waits for a message that `accept` takes.
 * @param until time to give up, as of {@link msSinceBoot}.
 * @param signal gives up earlier.
 */
export async function waitFor<T>(
  channel: Pick<Channel, 'receive'>,
  accept: (data: Uint8Array) => T | undefined,
  until: number,
  signal?: AbortSignal,
): Promise<T | undefined> {
  while (!signal?.aborted) {
    let count = 0;
    for (let data = channel.receive(); data; data = channel.receive()) {
      const accepted = accept(data);
      if (accepted !== undefined) return accepted;
      if (++count === mostAtOnce) break;
    }
    if (msSinceBoot() >= until) return undefined;
    await sleep(count < mostAtOnce ? pollInterval : 0);
  }
  return undefined;
}

/** Asks on the link whether somebody already has an address. */
export async function isInUse(link: ClientLink, address: Address): Promise<boolean> {
  const fd = openPacketSocket(link.netns, link.index, EtherType.ARP);
  try {
    sendPacket(fd, link.index, EtherType.ARP, broadcastMac, arpProbe(link.mac, address));
    const channel = { receive: () => read(fd) };
    const accept = (data: Uint8Array) => isConflict(data, address, link.mac) || undefined;
    return (await waitFor(channel, accept, msSinceBoot() + probeTime)) ?? false;
  } finally {
    closeSync(fd);
  }
}

function read(fd: number): Uint8Array | undefined {
  const buffer = new Uint8Array(2048);
  try {
    return buffer.subarray(0, libc('receive', 'recv', fd, buffer, buffer.length, MSG_DONTWAIT));
  } catch (error) {
    // Nothing yet, or an ICMP error to an earlier message, or the link went down: all mean that no answer is
    // here.
    if (isKernelError(error, 'EAGAIN', 'ECONNREFUSED', 'ENETDOWN', 'EHOSTUNREACH', 'ENETUNREACH'))
      return undefined;
    throw error;
  }
}

/** An IPv4 packet with a UDP datagram to a DHCP server. */
function ipPacket(payload: Uint8Array, from: Address, to: Address): Uint8Array {
  const length = 28 + payload.length;
  const out = new Uint8Array(length);
  const view = new DataView(out.buffer);
  out[0] = 0x45;
  out[1] = 0x10; // Low delay, as other clients do.
  view.setUint16(2, length);
  out[8] = 64;
  out[9] = IPPROTO_UDP;
  out.set(from.toBytes(), 12);
  out.set(to.toBytes(), 16);
  view.setUint16(10, checksum(out.subarray(0, 20)));
  view.setUint16(20, clientPort);
  view.setUint16(22, serverPort);
  view.setUint16(24, 8 + payload.length);
  out.set(payload, 28);
  const pseudo = new Uint8Array(12 + 8 + payload.length);
  pseudo.set(out.subarray(12, 20));
  pseudo[9] = IPPROTO_UDP;
  new DataView(pseudo.buffer).setUint16(10, 8 + payload.length);
  pseudo.set(out.subarray(20), 12);
  view.setUint16(26, checksum(pseudo) || 0xffff);
  return out;
}

/**
 * The payload of a UDP datagram to a DHCP client; undefined for any other packet. The UDP checksum is
 * ignored: between interfaces of one machine it is not computed.
 */
function dhcpPayload(packet: Uint8Array): Uint8Array | undefined {
  if (packet.length < 28 || packet[0]! >> 4 !== 4 || packet[9] !== IPPROTO_UDP) return undefined;
  const header = (packet[0]! & 15) * 4;
  const view = new DataView(packet.buffer, packet.byteOffset, packet.byteLength);
  const end = Math.min(view.getUint16(2), packet.length);
  if (header < 20 || header + 8 > end || view.getUint16(6) & 0x3fff) return undefined;
  if (view.getUint16(header + 2) !== clientPort || view.getUint16(header) !== serverPort) return undefined;
  return packet.subarray(header + 8, end);
}

/** An ARP request without a sender's address, so that no cache learns from it. */
function arpProbe(mac: Uint8Array, address: Address): Uint8Array {
  const out = new Uint8Array(28);
  out.set([0, 1, 8, 0, 6, 4, 0, 1]);
  out.set(mac, 8);
  out.set(address.toBytes(), 24);
  return out;
}

/** True for an ARP packet by which another station claims the address. */
function isConflict(packet: Uint8Array, address: Address, own: Uint8Array): boolean {
  if (packet.length < 28) return false;
  const sender = packet.subarray(8, 14);
  return (
    Address.fromBytes(packet.subarray(14, 18)).equals(address) && !sender.every((byte, i) => byte === own[i])
  );
}

/** struct sockaddr_in. */
function inetAddress(address: Address, port: number): Uint8Array {
  const out = numberBytes(16, (view) => {
    view.setUint16(0, AF_INET, true);
    view.setUint16(2, port);
  });
  out.set(address.toBytes(), 4);
  return out;
}
