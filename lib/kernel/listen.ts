/** Listening on a Unix socket, as daemons do: with systemd's help or without. */

import { chmodSync, lstatSync, rmSync } from 'node:fs';
import { connect, type Server } from 'node:net';
import { dirname } from 'node:path';
import { makeDirectory } from '../directory.ts';
import { errnoOf } from '../file.ts';
import { acquireLock, type FileLock, isLockHeld } from './lock.ts';

/** The first descriptor that systemd passes. Source: sd_listen_fds(3). */
const firstPassed = 3;

/**
 * Listens on a socket that only root may use, or on the one that systemd has passed. A lock beside the socket
 * keeps two processes that start at once from taking it from each other. It is held until the server is
 * closed or the process ends, however it does.
 * @param path of the socket. A stale one is replaced.
 * @param environment in which systemd says that it has passed one.
 * @param inUse message of the error when another process listens there already.
 * @throws Error with that message; when something other than a socket has the path; of bind(2).
 */
export async function listenOn(
  server: Server,
  path: string,
  environment: Readonly<Record<string, string | undefined>>,
  inUse: string,
): Promise<void> {
  if (environment.LISTEN_PID === String(process.pid) && environment.LISTEN_FDS === '1')
    return await listening(server, { fd: firstPassed });
  makeDirectory(dirname(path), 0o700);
  const lock = await lockOf(path, inUse);
  try {
    // A process that systemd gave the socket to does not hold the lock.
    if (await answers(path)) throw new Error(inUse);
    removeStale(path);
    // Nobody else may connect in between.
    const umask = process.umask(0o177);
    const isListening = listening(server, { path });
    process.umask(umask);
    await isListening;
    chmodSync(path, 0o600);
  } catch (error) {
    lock.close();
    throw error;
  }
  server.once('close', () => lock.close());
}

function listening(server: Server, where: { fd: number } | { path: string }): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject).listen(where, () => {
      server.off('error', reject);
      resolve();
    });
  });
}

async function lockOf(path: string, inUse: string): Promise<FileLock> {
  try {
    return await acquireLock(`${path}.lock`, 0);
  } catch (error) {
    if (isLockHeld(error)) throw new Error(inUse);
    throw error;
  }
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
