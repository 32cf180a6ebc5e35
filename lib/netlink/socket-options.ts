/** Netlink sockets as such: opened, set up, and read from. Sources: socket(7), netlink(7). */

import { closeSync } from 'node:fs';
import { isKernelError, libc } from './libc.ts';
import { i32, struct, u16, u32, u64 } from './struct.ts';

const AF_NETLINK = 16;
const SOCK_RAW_CLOEXEC = 3 | 0x80000;
const SOL_NETLINK = 270;
const NETLINK_EXT_ACK = 11;
const NETLINK_GET_STRICT_CHK = 12;
const SOL_SOCKET = 1;
const SO_SNDBUF = 7;
const SO_RCVTIMEO = 20;
const SO_SNDBUFFORCE = 32;

/** struct sockaddr_nl. The kernel's own port is 0, which no process can have. */
const sockaddrNl = struct({ family: u16, port: u32, groups: u32 });
const timeval = struct({ seconds: u64, microseconds: u64 });

/** The kernel answers at once; one that does not within this many seconds never will. */
const timeoutSeconds = 10;

/**
 * Opens a socket in the network namespace of the thread.
 * @param groups bit mask of the multicast groups whose reports to receive.
 * @returns its descriptor.
 * @throws KernelError
 */
export function openSocket(protocol: number, groups: number): number {
  const fd = libc('open a netlink socket', 'socket', AF_NETLINK, SOCK_RAW_CLOEXEC, protocol);
  try {
    prepare(fd, groups);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  }
}

function prepare(fd: number, groups: number): void {
  const one = i32.encode(1);
  libc('ask for extended acknowledgements', 'setsockopt', fd, SOL_NETLINK, NETLINK_EXT_ACK, one, 4);
  libc('ask for strict checking', 'setsockopt', fd, SOL_NETLINK, NETLINK_GET_STRICT_CHK, one, 4);
  const timeout = timeval.encode({ seconds: BigInt(timeoutSeconds) });
  libc('set a receive timeout', 'setsockopt', fd, SOL_SOCKET, SO_RCVTIMEO, timeout, timeout.length);
  if (groups !== 0) {
    const address = sockaddrNl.encode({ family: AF_NETLINK, groups });
    libc('listen to reports of the kernel', 'bind', fd, address, address.length);
  }
  // From now on, what processes send to it is refused: a flood of that would crowd out the kernel's answers.
  const kernel = sockaddrNl.encode({ family: AF_NETLINK });
  libc('connect a socket to the kernel', 'connect', fd, kernel, kernel.length);
}

const sender = new Uint8Array(sockaddrNl.size);
const senderSize = new Uint32Array(1);
const senderSizeBytes = new Uint8Array(senderSize.buffer);

/**
 * Waits for an answer of the kernel. What processes of a container sent to a socket in its namespace before
 * that was connected is passed over.
 * @returns how many bytes it has.
 * @throws KernelError
 */
export function receiveFromKernel(fd: number, buffer: Uint8Array): number {
  const action = 'read the answer of the kernel';
  for (;;) {
    senderSize[0] = sender.length;
    const length = libc(action, 'recvfrom', fd, buffer, buffer.length, 0, sender, senderSizeBytes);
    if (sockaddrNl.decode(sender).port === 0) return length;
  }
}

/**
 * Lets a socket send more at once than the usual 208 KiB. Outside the initial user namespace, the kernel
 * allows up to twice net.core.wmem_max.
 * @param size in bytes.
 * @throws KernelError
 */
export function makeRoomToSend(fd: number, size: number): void {
  // The kernel doubles the size.
  const set = (option: number) =>
    libc('enlarge the send buffer', 'setsockopt', fd, SOL_SOCKET, option, i32.encode(size), 4);
  try {
    set(SO_SNDBUFFORCE);
  } catch (error) {
    if (!isKernelError(error, 'EPERM')) throw error;
    set(SO_SNDBUF);
  }
}
