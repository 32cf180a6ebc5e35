/** Unix sockets, for what Node.js cannot do with them. Source: unix(7). */

import { closeSync } from 'node:fs';
import { libc } from '../netlink/libc.ts';

const AF_UNIX = 1;
const SOCK_CLOEXEC = 0x80000;
const types = { stream: 1, datagram: 2 } as const;
/** Does not wait for a receiver that hangs. */
const MSG_DONTWAIT = 0x40;

/** Opens a socket. @param action what it is for, for the error message. @returns its descriptor. */
export function openUnixSocket(action: string, type: keyof typeof types): number {
  return libc(action, 'socket', AF_UNIX, types[type] | SOCK_CLOEXEC, 0);
}

/**
 * Makes an address as struct sockaddr_un has it.
 * @param name a path and the NUL that ends it, or NUL and a name in the abstract namespace.
 */
export function unixAddress(name: string): Buffer {
  return Buffer.concat([Buffer.of(AF_UNIX, 0), Buffer.from(name)]);
}

/**
 * Sends a datagram without waiting.
 * @param action what is tried, for the error message.
 * @param socket path of the receiver's socket, or "@" and a name for one in the abstract namespace.
 * @throws KernelError with that action: ENOENT or ECONNREFUSED when nobody receives, EAGAIN when the receiver
 *   does not keep up.
 */
export function sendDatagram(action: string, socket: string, data: Buffer): void {
  const address = unixAddress(socket.startsWith('@') ? `\0${socket.slice(1)}` : `${socket}\0`);
  const fd = openUnixSocket(action, 'datagram');
  try {
    libc(action, 'sendto', fd, data, data.length, MSG_DONTWAIT, address, address.length);
  } finally {
    closeSync(fd);
  }
}
