/** The lock on the set of networks that a pod has. */

import { fstatSync, rmSync } from 'node:fs';
import { acquireLock, type FileLock, tryAcquireLock } from '../kernel/lock.ts';
import { listStateFiles } from '../state-file.ts';

/** Only root can open what is in it, whereas the pod itself could take a lock on its namespace. */
const lockDirectory = '/run/cni/networks';

/** How long a change of a pod's networks may take, in milliseconds: DHCP servers alone have 30 seconds. */
const longestChange = 60_000;

/**
 * Waits until nobody else is changing a pod's networks, neither a plugin that attaches it to several nor an
 * operator. The lock is a file named after the container, which is removed when the lock is released.
 * @param directory where the file is.
 * @throws CniError TryAgainLater when another process holds it for longer than {@link longestChange},
 *   IOFailure when the file cannot be locked.
 */
export async function lockNetworks(containerId: string, directory = lockDirectory): Promise<Disposable> {
  const file = `${directory}/${containerId}`;
  for (;;) {
    const lock = await acquireLock(file, longestChange);
    const whole = asNetworksLock(lock, file);
    if (whole) return whole;
  }
}

/**
 * Takes the lock as {@link lockNetworks} does, if it is free.
 * @returns undefined when somebody is changing the pod's networks.
 * @throws CniError IOFailure when the file cannot be locked.
 */
export function tryLockNetworks(containerId: string, directory = lockDirectory): Disposable | undefined {
  const file = `${directory}/${containerId}`;
  const lock = tryAcquireLock(file);
  return lock && asNetworksLock(lock, file);
}

/**
 * Only the holder of the lock removes the file. Whoever was waiting for it then has a lock on the removed
 * file.
 * @returns undefined for such a lock, which is closed.
 */
function asNetworksLock(lock: FileLock, file: string): Disposable | undefined {
  if (fstatSync(lock.fd).nlink === 0) {
    lock.close();
    return undefined;
  }
  return {
    [Symbol.dispose]() {
      try {
        rmSync(file, { force: true });
      } catch {
        // What has been done under the lock is done. GC removes the file.
      }
      lock.close();
    },
  };
}

/**
 * Removes the files of locks whose holders were killed.
 * @param warn is told of what cannot be removed, which does no harm.
 * @param directory where they are.
 */
export function removeLeftLocks(warn: (message: string) => void, directory = lockDirectory): void {
  const attempt = <T>(step: () => T): T | undefined => {
    try {
      return step();
    } catch (error) {
      warn((error as Error).message);
      return undefined;
    }
  };
  for (const name of attempt(() => listStateFiles(directory)) ?? [])
    attempt(() => {
      const file = `${directory}/${name}`;
      using lock = tryAcquireLock(file);
      if (lock && fstatSync(lock.fd).nlink > 0) rmSync(file, { force: true });
    });
}
