/** Datagrams to a Unix socket, which Node.js cannot send. Source: unix(7). */

import { closeSync } from 'node:fs';
import { libc } from '../netlink/libc.ts';

const AF_UNIX = 1;
const SOCK_DGRAM_CLOEXEC = 2 | 0x80000;
/** Does not wait for a receiver that hangs. */
const MSG_DONTWAIT = 0x40;

/**
 * Sends a datagram. It waits for nobody.
 * @param action what is tried, for the error message.
 * @param socket path of the receiver's socket, or "@" and a name for one in the abstract namespace.
 * @throws KernelError with that action: ENOENT or ECONNREFUSED when nobody receives, EAGAIN when the receiver
 *   does not keep up.
 */
export function sendDatagram(action: string, socket: string, data: Buffer): void {
  // An abstract name begins with NUL and ends with the address; a path ends with NUL.
  const name = socket.startsWith('@') ? `\0${socket.slice(1)}` : `${socket}\0`;
  const address = Buffer.concat([Buffer.of(AF_UNIX, 0), Buffer.from(name)]);
  const fd = libc(action, 'socket', AF_UNIX, SOCK_DGRAM_CLOEXEC, 0);
  try {
    libc(action, 'sendto', fd, data, data.length, MSG_DONTWAIT, address, address.length);
  } finally {
    closeSync(fd);
  }
}
