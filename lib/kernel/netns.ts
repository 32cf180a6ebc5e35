/** Network namespaces. Sources: setns(2), ioctl_ns(2), network_namespaces(7). */

import { closeSync, fstatSync, openSync, statSync } from 'node:fs';
import { isKernelError, libc } from '../netlink/libc.ts';

const CLONE_NEWNET = 0x40000000;
const NS_GET_NSTYPE = 0xb703;

/** The path leads to no namespace any more: the container is gone. */
export class NetnsGoneError extends Error {
  override readonly name = 'NetnsGoneError';
}

/**
 * A network namespace, held open. Only the calling thread enters it, and only within {@link run}: sockets opened, files
 * under /proc/sys read or written with the synchronous functions, and children started there belong to it.
 */
export class Netns {
  readonly fd: number;
  /** What it was opened by, for messages. */
  readonly path: string;

  private constructor(fd: number, path: string) {
    this.fd = fd;
    this.path = path;
  }

  /**
   * Opens a namespace by path.
   * @throws NetnsGoneError when nothing is there, or something that is no namespace, as a bind mount that was lifted leaves behind.
   */
  static open(path: string): Netns {
    let fd: number;
    try {
      fd = openSync(path, 'r');
    } catch (error) {
      const { code } = error as NodeJS.ErrnoException;
      if (code === 'ENOENT' || code === 'ENOTDIR' || code === 'ESRCH')
        throw new NetnsGoneError(
          `Network namespace "${path}" does not exist. The container may have ended meanwhile`,
        );
      throw new Error(`Cannot open network namespace "${path}"`, { cause: error });
    }
    try {
      if (
        libc(`ask for the kind of namespace "${path}"`, 'ioctl', fd, NS_GET_NSTYPE, new Uint8Array(8)) ===
        CLONE_NEWNET
      )
        return new Netns(fd, path);
    } catch (error) {
      if (!isKernelError(error, 'ENOTTY', 'EINVAL', 'EBADF', 'EOPNOTSUPP')) {
        closeSync(fd);
        throw error;
      }
    }
    closeSync(fd);
    throw new NetnsGoneError(
      `"${path}" is not a network namespace. Its container may have ended meanwhile; if it has not, check CNI_NETNS`,
    );
  }

  /** Opens a namespace by path, or gives undefined when it is gone. @throws Error when it is there but out of reach. */
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

  /** A new namespace with nothing in it but a loopback interface that is down; it lives while it is held open. */
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

  /** True when both are the same namespace, by whatever path. */
  isSame(other: Netns | string): boolean {
    const [a, b] = [fstatSync(this.fd), typeof other === 'string' ? statSync(other) : fstatSync(other.fd)];
    return a.dev === b.dev && a.ino === b.ino;
  }

  /**
   * Runs a function within the namespace and comes back, whatever happens.
   * @param inside must be synchronous: after an await, the thread would be found outside again.
   */
  run<T>(inside: () => T): T {
    const own = Netns.current();
    try {
      libc(`enter network namespace "${this.path}"`, 'setns', this.fd, CLONE_NEWNET);
      try {
        return inside();
      } finally {
        enter(own);
      }
    } finally {
      own.close();
    }
  }

  close(): void {
    closeSync(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** Going back must not fail: what follows would be done to the container in place of the node. */
function enter(own: Netns): void {
  try {
    libc("go back to the node's network namespace", 'setns', own.fd, CLONE_NEWNET);
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    process.abort();
  }
}
