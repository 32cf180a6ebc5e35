/** What Node.js can neither tell about a Unix socket nor do to it. Sources: unix(7), shutdown(2), proc(5). */

import { closeSync, readFileSync, statSync } from 'node:fs';
import type { Socket } from 'node:net';
import { errnoOf } from '../lib/file.ts';
import { isKernelError, libc } from '../lib/netlink/libc.ts';

const SOL_SOCKET = 1;
const SO_PEERCRED = 17;
const SO_PEERPIDFD = 77;
const SHUT_RD = 0;

/** What decides on what a process may do to the host and where, by its names in /proc/PID. */
const parts = ['ns/mnt', 'ns/net', 'ns/user', 'root'] as const;

/** Device and inode of each, as in "4:4026531841"; "" for a namespace that the kernel does not have. */
export type Surroundings = Readonly<Record<(typeof parts)[number], string>>;

/**
 * The namespaces and the root directory of a process.
 * @param pid its ID, or "self".
 * @throws Error of code EACCES when this process may not see them.
 */
export function surroundingsOf(pid: number | 'self'): Surroundings {
  const entries = parts.map((part) => {
    const status = statSync(`/proc/${pid}/${part}`, { throwIfNoEntry: false, bigint: true });
    return [part, status ? `${status.dev}:${status.ino}` : ''];
  });
  return Object.fromEntries(entries) as Surroundings;
}

/** User ID of the process at the other end; undefined when the socket is closed. */
export function peerUser(socket: Socket): number | undefined {
  const fd = descriptorOf(socket);
  return fd === undefined ? undefined : credentialsOf(fd).uid;
}

/**
 * Whether the process that made a connection is in these surroundings, according to the kernel. False for one
 * that has ended, or that is in a PID namespace which this process cannot see.
 * @throws Error when this process may not see the other's surroundings.
 */
export function isPeerIn(socket: Socket, own: Surroundings): boolean {
  const fd = descriptorOf(socket);
  if (fd === undefined) return false;
  const { pid } = credentialsOf(fd);
  if (pid === 0) return false;
  try {
    const surroundings = surroundingsOf(pid);
    return parts.every((part) => surroundings[part] === own[part]) && isStillPeer(fd, pid);
  } catch (cause) {
    if (errnoOf(cause) !== 'EACCES') throw cause;
    throw new Error(
      `This agent may not see the namespaces of process ${pid}, and leaves its call to the executable. Grant the agent CAP_SYS_PTRACE`,
      { cause },
    );
  }
}

/**
 * Whether a PID is still that of the process that made a connection, and has not been reused since. Before
 * Linux 6.5 the kernel cannot tell.
 */
function isStillPeer(fd: number, pid: number): boolean {
  const handle = new Uint8Array(4);
  const size = new Uint8Array(Uint32Array.of(handle.length).buffer);
  try {
    libc('ask for the peer of a connection', 'getsockopt', fd, SOL_SOCKET, SO_PEERPIDFD, handle, size);
  } catch (error) {
    // Any other error means that the process has ended.
    return isKernelError(error, 'ENOPROTOOPT');
  }
  const pidfd = new DataView(handle.buffer).getInt32(0, true);
  try {
    return readFileSync(`/proc/self/fdinfo/${pidfd}`, 'latin1').includes(`\nPid:\t${pid}\n`);
  } finally {
    closeSync(pidfd);
  }
}

function credentialsOf(fd: number): { pid: number; uid: number } {
  const credentials = new Uint8Array(12);
  const size = new Uint8Array(Uint32Array.of(credentials.length).buffer);
  libc('ask for the peer of a connection', 'getsockopt', fd, SOL_SOCKET, SO_PEERCRED, credentials, size);
  const view = new DataView(credentials.buffer);
  return { pid: view.getInt32(0, true), uid: view.getUint32(4, true) };
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
