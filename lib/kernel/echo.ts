/** ICMP echo requests. Sources: RFC 792, RFC 4443, raw(7), ip(7), ipv6(7). */

import { closeSync } from 'node:fs';
import type { Address, Family } from '../ip.ts';
import { isKernelError, libc } from '../netlink/libc.ts';
import { checksum } from './packet.ts';

const SOCK_RAW_CLOEXEC = 3 | 0x80000;
const SOL_SOCKET = 1;
const SO_RCVTIMEO = 20;
/** Never fragment, and let nobody on the way do so. */
const PMTUDISC_DO = 2;
/** How long a receiver waits at a time, in milliseconds. */
const patienceMs = 100;

/** What differs between the families. */
const families: Readonly<
  Record<
    Family,
    {
      domain: number;
      protocol: number;
      request: number;
      reply: number;
      header: number;
      discover: [number, number];
    }
  >
> = {
  4: { domain: 2, protocol: 1, request: 8, reply: 0, header: 20, discover: [0, 10] },
  6: { domain: 10, protocol: 58, request: 128, reply: 129, header: 40, discover: [41, 23] },
};

/** Type, code, checksum, identifier, sequence number. */
const messageHeader = 8;
/** Number of random bytes, which tell answers to this request from others. */
const tokenSize = 8;

/** How an echo request is sent. */
export interface EchoOptions {
  /** Size of the packet with its IP header; 64 when left out. */
  readonly bytes?: number;
  /** How long to wait for an answer. */
  readonly timeoutMs: number;
  /** Whether the packet must arrive in one piece. */
  readonly dontFragment?: boolean;
}

/**
 * Sends one echo request in the thread's network namespace, and waits for the answer.
 * @returns how many milliseconds it took; undefined when none came.
 * @throws KernelError when it cannot be sent: EMSGSIZE when it is larger than the known path MTU.
 */
export function echo(
  to: Address,
  { bytes = 64, timeoutMs, dontFragment = false }: EchoOptions,
): number | undefined {
  const { domain, protocol, request, header, discover } = families[to.family];
  const message = Buffer.alloc(Math.max(bytes - header, messageHeader + tokenSize));
  const token = crypto.getRandomValues(Buffer.alloc(tokenSize));
  message[0] = request;
  token.copy(message, messageHeader);
  // For IPv6, the kernel does this itself.
  if (to.family === 4) message.writeUInt16BE(checksum(message), 2);
  const fd = libc('open a raw socket', 'socket', domain, SOCK_RAW_CLOEXEC, protocol);
  try {
    setOption(
      fd,
      SOL_SOCKET,
      SO_RCVTIMEO,
      Buffer.from(BigInt64Array.of(0n, BigInt(patienceMs * 1000)).buffer),
    );
    if (dontFragment) setOption(fd, ...discover, Buffer.from(Int32Array.of(PMTUDISC_DO).buffer));
    const address = socketAddress(to);
    const start = performance.now();
    libc(`send an echo request to ${to}`, 'sendto', fd, message, message.length, 0, address, address.length);
    const buffer = new Uint8Array(65_536);
    while (performance.now() - start < timeoutMs)
      if (isAnswer(buffer.subarray(0, receive(fd, buffer)), to.family, token))
        return performance.now() - start;
    return undefined;
  } finally {
    closeSync(fd);
  }
}

function setOption(fd: number, level: number, option: number, value: Uint8Array): void {
  libc('set an option of a raw socket', 'setsockopt', fd, level, option, value, value.length);
}

/** @returns the number of bytes, 0 when nothing has come. */
function receive(fd: number, buffer: Uint8Array): number {
  try {
    return libc('receive an echo reply', 'recv', fd, buffer, buffer.length, 0);
  } catch (error) {
    if (isKernelError(error, 'EAGAIN')) return 0;
    throw error;
  }
}

/** A raw socket gets every message of its protocol; with the IP header in IPv4, and without it in IPv6. */
function isAnswer(packet: Uint8Array, family: Family, token: Uint8Array): boolean {
  const message = family === 4 ? packet.subarray((packet[0]! & 0xf) * 4) : packet;
  const echoed = message.subarray(messageHeader, messageHeader + tokenSize);
  return message[0] === families[family].reply && Buffer.compare(echoed, token) === 0;
}

/** struct sockaddr_in, struct sockaddr_in6. */
function socketAddress(address: Address): Uint8Array {
  const bytes = Buffer.alloc(address.family === 4 ? 16 : 28);
  bytes.writeUInt16LE(families[address.family].domain, 0);
  bytes.set(address.toBytes(), address.family === 4 ? 4 : 8);
  return bytes;
}
