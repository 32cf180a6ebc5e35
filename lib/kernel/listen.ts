/** Listening on a Unix socket, as daemons do: with systemd's help or without. */

import { chmodSync, closeSync, lstatSync, rmSync } from 'node:fs';
import { connect, type Server } from 'node:net';
import { dirname } from 'node:path';
import { makeDirectory } from '../directory.ts';
import { errnoOf } from '../file.ts';
import { libc } from '../netlink/libc.ts';
import { tryAcquireLock } from './lock.ts';
import { openUnixSocket, unixAddress } from './unix-socket.ts';

/** The longest path that a Unix socket can have, in bytes. Source: unix(7). */
const longestPath = 107;

/** The first descriptor that systemd passes. Source: sd_listen_fds(3). */
const firstPassed = 3;

/**
 * Listens on a socket that only root may use, or on the one that systemd has passed. A lock beside the socket
 * keeps two processes that start at once from taking it from each other. It is held until the server is
 * closed, which removes the socket, or until the process ends in whatever way.
 * @param path of the socket. A stale one is replaced.
 * @param environment in which systemd says that it has passed one.
 * @param inUse message of the error when another process listens there already.
 * @throws Error with that message; when the path is something other than a socket, or too long; the error of
 *   bind(2).
 */
export async function listenOn(
  server: Server,
  path: string,
  environment: Readonly<Record<string, string | undefined>>,
  inUse: string,
): Promise<void> {
  if (environment.LISTEN_PID === String(process.pid) && environment.LISTEN_FDS === '1')
    return await listening(server, { fd: firstPassed });
  if (Buffer.byteLength(path) > longestPath)
    throw new Error(`"${path}" is too long for a socket. Give a path of at most ${longestPath} bytes`);
  makeDirectory(dirname(path), 0o700);
  const lock = tryAcquireLock(`${path}.lock`);
  if (!lock) throw new Error(inUse);
  try {
    // A process that systemd gave the socket to does not hold the lock.
    if (await answers(path)) throw new Error(inUse);
    removeStale(path);
    const fd = bindSocket(path);
    const own = lstatSync(path);
    await listening(server, { fd });
    server.once('close', () => {
      const current = lstatSync(path, { throwIfNoEntry: false });
      if (current?.dev === own.dev && current.ino === own.ino) rmSync(path, { force: true });
      lock.close();
    });
  } catch (error) {
    lock.close();
    throw error;
  }
}

/**
 * Binds a socket that only root may use. Node.js would remove a socket that it has bound itself by its path,
 * even if that is another process's by then: systemd takes a path from whoever has it.
 */
function bindSocket(path: string): number {
  const address = unixAddress(`${path}\0`);
  const fd = openUnixSocket('open a Unix socket', 'stream');
  // Nobody else may connect in between.
  const umask = process.umask(0o177);
  try {
    libc(`listen on "${path}"`, 'bind', fd, address, address.length);
    chmodSync(path, 0o600);
    return fd;
  } catch (error) {
    closeSync(fd);
    throw error;
  } finally {
    process.umask(umask);
  }
}

function listening(server: Server, where: { fd: number }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject).listen(where, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

function removeStale(path: string): void {
  const status = lstatSync(path, { throwIfNoEntry: false });
  if (status && !status.isSocket())
    throw new Error(`"${path}" is not a socket. Remove it, or name another path for the socket`);
  rmSync(path, { force: true });
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path, () => {
      probe.destroy();
      resolve(true);
      // After any other error, a process may be listening.
    }).on('error', (error) =>
      resolve(!['ENOENT', 'ENOTDIR', 'ECONNREFUSED', 'ENOTSOCK'].includes(errnoOf(error) ?? '')),
    );
  });
}
