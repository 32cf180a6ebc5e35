/** What Node.js does not tell of a Unix socket, nor do to it. Sources: unix(7), shutdown(2). */

import type { Socket } from 'node:net';
import { libc } from '../lib/netlink/libc.ts';

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SHUT_RD = 0;

/** User ID of the process at the other end; undefined when the socket is closed. */
export function peerUser(socket: Socket): number | undefined {
  const fd = descriptorOf(socket);
  if (fd === undefined) return undefined;
  const credentials = new Uint8Array(12);
  const size = new Uint8Array(Uint32Array.of(credentials.length).buffer);
  libc('ask for the peer of a connection', 'getsockopt', fd, SOL_SOCKET, SO_PEERCRED, credentials, size);
  return new DataView(credentials.buffer).getUint32(4, true);
}

/**
 * Has the other end fail when it writes from now on. What it has written before still arrives, followed by
 * the end.
 */
export function refuseMore(socket: Socket): void {
  const fd = descriptorOf(socket);
  if (fd !== undefined) libc('end a connection', 'shutdown', fd, SHUT_RD);
}

function descriptorOf(socket: Socket): number | undefined {
  const { fd } = (socket as unknown as { _handle: { fd: number } | null })._handle ?? { fd: -1 };
  return fd < 0 ? undefined : fd;
}
