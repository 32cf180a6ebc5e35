/** Network namespaces. Sources: setns(2), ioctl_ns(2), network_namespaces(7). */

import { closeSync, constants, fstatSync, openSync, type Stats, statfsSync, statSync } from 'node:fs';
import { errnoOf } from '../file.ts';
import { isKernelError, libc } from '../netlink/libc.ts';

const CLONE_NEWNET = 0x40000000;
const NS_GET_NSTYPE = 0xb703;
/** The file system of namespace files. Source: linux/magic.h. */
const NSFS_MAGIC = 0x6e736673;
const AF_INET = 2;
const SOCK_DGRAM_CLOEXEC = 2 | 0x80000;
const SOL_SOCKET = 1;
const SO_NETNS_COOKIE = 71;
/** How often going back to the host is tried. */
const returnTries = 100;

/** The path does not lead to a network namespace: the container is gone, or the path is wrong. */
export class NetnsGoneError extends Error {
  override readonly name = 'NetnsGoneError';
}

/**
 * A network namespace, held open. Only the calling thread enters it, and only within {@link run}: sockets
 * opened, files under /proc/sys read or written with the synchronous functions, and children started there
 * belong to it.
 */
export class Netns {
  /** Where the thread is. Its own namespace stays open, as opening it takes longer than entering another. */
  private static where: Netns | undefined;

  readonly fd: number;
  /** The path that it was opened by, for messages. */
  readonly path: string;

  private constructor(fd: number, path: string) {
    this.fd = fd;
    this.path = path;
  }

  /**
   * Opens a network namespace by path. It never blocks, as opening a FIFO would.
   * @throws NetnsGoneError when nothing is there, or something that is not a network namespace, such as the
   *   plain file that an unmounted bind mount leaves behind.
   */
  static open(path: string): Netns {
    const fd = openFile(path);
    if (isNetworkNamespace(fd, path)) return new Netns(fd, path);
    closeSync(fd);
    throw notNamespace(path, 'a file');
  }

  /**
   * As {@link open}, but returns undefined when it is gone.
   * @throws Error when it exists but is out of reach.
   */
  static openIfPresent(path: string): Netns | undefined {
    if (path === '') return undefined;
    try {
      return Netns.open(path);
    } catch (error) {
      if (error instanceof NetnsGoneError) return undefined;
      throw error;
    }
  }

  /** The namespace that the thread is in. */
  static current(): Netns {
    return new Netns(openSync('/proc/thread-self/ns/net', 'r'), '/proc/thread-self/ns/net');
  }

  /**
   * A new namespace with nothing in it but a loopback interface that is down; it exists as long as it is held
   * open.
   */
  static create(): Netns {
    const own = Netns.current();
    try {
      libc('create a network namespace', 'unshare', CLONE_NEWNET);
      try {
        return Netns.current();
      } finally {
        enter(own);
      }
    } finally {
      own.close();
    }
  }

  /**
   * Runs a function within the namespace and comes back, whatever happens.
   * @param inside must be synchronous: after an await, the thread would be outside again.
   */
  run<T>(inside: () => T): T {
    Netns.where ??= Netns.current();
    const from = Netns.where;
    libc(`enter network namespace "${this.path}"`, 'setns', this.fd, CLONE_NEWNET);
    Netns.where = this;
    try {
      return inside();
    } finally {
      enter(from);
      Netns.where = from;
    }
  }

  /**
   * An ID that no other namespace has until the next boot, not even a later one at the same path. Kernels
   * before 5.14 have only the inode number of its file, which another one may get when this one is gone.
   * Source: SO_NETNS_COOKIE in asm-generic/socket.h.
   */
  identity(): string {
    const socket = this.run(() => libc('open a UDP socket', 'socket', AF_INET, SOCK_DGRAM_CLOEXEC, 0));
    try {
      const cookie = new BigUint64Array(1);
      const value = new Uint8Array(cookie.buffer);
      const length = new Uint8Array(Uint32Array.of(value.length).buffer);
      libc('identify a namespace', 'getsockopt', socket, SOL_SOCKET, SO_NETNS_COOKIE, value, length);
      return `cookie ${cookie[0]}`;
    } catch (error) {
      if (!isKernelError(error, 'ENOPROTOOPT')) throw error;
      return `file ${fstatSync(this.fd).ino}`;
    } finally {
      closeSync(socket);
    }
  }

  close(): void {
    closeSync(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/**
 * Going back must not fail: what follows would be done to the container instead of the host. It is retried,
 * as memory may be short for a moment.
 */
function enter(own: Netns): void {
  for (let tries = 1; ; tries++) {
    try {
      libc("go back to the host's network namespace", 'setns', own.fd, CLONE_NEWNET);
      return;
    } catch {
      if (tries === returnTries) process.abort();
    }
  }
}

function openFile(path: string): number {
  try {
    // Checked first: opening a device can have side effects.
    const kind = kindOf(statSync(path));
    if (kind !== 'file') throw notNamespace(path, kind);
    return openSync(path, constants.O_RDONLY | constants.O_NONBLOCK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (error instanceof NetnsGoneError) throw error;
    if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ESRCH')
      throw new NetnsGoneError(
        `Network namespace "${path}" does not exist. The container may have ended meanwhile`,
      );
    if (code === 'ELOOP') throw notNamespace(path, 'a symbolic link that leads in a circle');
    throw new Error(
      `Cannot open network namespace "${path}" (${code}). Check CNI_NETNS and its permissions`,
      {
        cause: error,
      },
    );
  }
}

function isNetworkNamespace(fd: number, path: string): boolean {
  try {
    const type = libc(
      `look up the type of namespace "${path}"`,
      'ioctl',
      fd,
      NS_GET_NSTYPE,
      new Uint8Array(8),
    );
    return type === CLONE_NEWNET;
  } catch (error) {
    if (isKernelError(error, 'ENOTTY', 'EINVAL', 'EBADF', 'EOPNOTSUPP')) return false;
    closeSync(fd);
    throw error;
  }
}

function notNamespace(path: string, kind: string): NetnsGoneError {
  return new NetnsGoneError(
    `"${path}" is ${kind}, not a network namespace. Its container may have ended meanwhile; if it has not, check CNI_NETNS`,
  );
}

function kindOf(stats: Stats): string {
  if (stats.isFile()) return 'file';
  if (stats.isDirectory()) return 'a directory';
  if (stats.isFIFO()) return 'a FIFO';
  if (stats.isSocket()) return 'a socket';
  return 'a device';
}

/**
 * Whether there is no namespace at a path that was recorded. The path is only looked up, not opened. An
 * unmounted bind mount leaves a plain file.
 */
export function isNetnsGone(path: string): boolean {
  if (!path.startsWith('/')) return false;
  try {
    return statfsSync(path).type !== NSFS_MAGIC;
  } catch (error) {
    return ['ENOENT', 'ENOTDIR', 'ESRCH'].includes(errnoOf(error) ?? '');
  }
}

/** Whether all namespaces that a container is known by are gone. False when none is known. */
export function areNetnsGone(paths: readonly string[]): boolean {
  return paths.length > 0 && paths.every(isNetnsGone);
}
