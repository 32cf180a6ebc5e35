/** Listening on a Unix socket, as daemons do: with systemd's help or without. */

import { chmodSync, rmSync } from 'node:fs';
import { connect, type Server } from 'node:net';
import { dirname } from 'node:path';
import { makeDirectory } from './directory.ts';
import { errnoOf } from './file.ts';

/** The first descriptor that systemd passes. Source: sd_listen_fds(3). */
const firstPassed = 3;

/**
 * Listens on a socket that only root may use, or on the one that systemd has passed.
 * @param path of the socket. A stale one is replaced.
 * @param environment in which systemd says that it has passed one.
 * @param inUse message of the error when another process listens there already.
 */
export async function listenOn(
  server: Server,
  path: string,
  environment: Readonly<Record<string, string | undefined>>,
  inUse: string,
): Promise<void> {
  const isPassed = environment.LISTEN_PID === String(process.pid) && environment.LISTEN_FDS === '1';
  if (!isPassed) {
    if (await answers(path)) throw new Error(inUse);
    makeDirectory(dirname(path), 0o700);
    rmSync(path, { force: true });
  }
  await new Promise<void>((resolve, reject) => {
    // Nobody else may connect in between.
    const umask = process.umask(0o177);
    server.once('error', reject).listen(isPassed ? { fd: firstPassed } : { path }, resolve);
    process.umask(umask);
  });
  server.removeAllListeners('error');
  if (!isPassed) chmodSync(path, 0o600);
}

function answers(path: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(path, () => {
      probe.destroy();
      resolve(true);
      // Whatever else goes wrong, somebody may be there.
    }).on('error', (error) =>
      resolve(!['ENOENT', 'ENOTDIR', 'ECONNREFUSED', 'ENOTSOCK'].includes(errnoOf(error) ?? '')),
    );
  });
}
