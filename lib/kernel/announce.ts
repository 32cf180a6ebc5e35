/** Tells the neighbours that addresses are at a MAC address now. Sources: RFC 826, RFC 5227 section 3, RFC 4861 section 7.2.6. */

import { closeSync } from 'node:fs';
import { Address } from '../ip.ts';
import { parseMac } from './link.ts';
import type { Netns } from './netns.ts';
import { checksum, EtherType, everybody, openPacketSocket, sendPacket } from './packet.ts';

const allNodes = Address.parse('ff02::1');
const allNodesMac = Uint8Array.of(0x33, 0x33, 0, 0, 0, 1);
const IPPROTO_ICMPV6 = 58;

/**
 * Sends a gratuitous ARP request or an unsolicited neighbour advertisement for each address.
 * @param link of the sandbox: its index and MAC address.
 */
export function announce(
  netns: Netns,
  link: { index: number; mac: string },
  addresses: readonly Address[],
): void {
  const mac = parseMac(link.mac);
  if (!mac) return;
  for (const [family, protocol, to, compose] of [
    [4, EtherType.ARP, everybody, gratuitousArp],
    [6, EtherType.IPv6, allNodesMac, neighbourAdvertisement],
  ] as const) {
    const own = addresses.filter((address) => address.family === family);
    if (own.length === 0) continue;
    const fd = openPacketSocket(netns, link.index, protocol);
    try {
      for (const address of own) sendPacket(fd, link.index, protocol, to, compose(mac, address));
    } finally {
      closeSync(fd);
    }
  }
}

/** "Who has my address? Tell me": nobody answers, and everybody learns. */
function gratuitousArp(mac: Uint8Array, address: Address): Uint8Array {
  const out = new Uint8Array(28);
  out.set([0, 1, 8, 0, 6, 4, 0, 1]);
  out.set(mac, 8);
  out.set(address.toBytes(), 14);
  out.set(address.toBytes(), 24);
  return out;
}

/** An IPv6 packet with the advertisement, which overrides what the neighbours knew. */
function neighbourAdvertisement(mac: Uint8Array, address: Address): Uint8Array {
  const length = 32;
  const out = new Uint8Array(40 + length);
  out[0] = 0x60;
  out[5] = length;
  out[6] = IPPROTO_ICMPV6;
  out[7] = 255;
  out.set(address.toBytes(), 8);
  out.set(allNodes.toBytes(), 24);
  out.set([136, 0, 0, 0, 0x20], 40);
  out.set(address.toBytes(), 48);
  out.set([2, 1], 64);
  out.set(mac, 66);
  const pseudo = new Uint8Array(40 + length);
  pseudo.set(out.subarray(8, 40));
  pseudo[35] = length;
  pseudo[39] = IPPROTO_ICMPV6;
  pseudo.set(out.subarray(40), 40);
  new DataView(out.buffer).setUint16(42, checksum(pseudo));
  return out;
}
