/** A lock between processes. Source: flock(2). */

import { closeSync, constants, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeDirectory } from '../directory.ts';
import { CniError, ErrorCode } from '../errors.ts';
import { isKernelError, libc } from '../netlink/libc.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;

/** Milliseconds between two tries to get a lock that another holds: short at first, as most are held for a few. */
const shortestPause = 1;
const longestPause = 20;

/**
 * A lock on an open file. It ends when the file is closed, if only by the end of the process; a child that inherits the
 * descriptor holds it as well.
 */
export class HeldLock {
  readonly fd: number;

  /** @param fd descriptor of the locked file. */
  constructor(fd: number) {
    this.fd = fd;
  }

  close(): void {
    closeSync(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

/** A lock that was waited for without end, while the whole process stood still. */
export class FileLock extends HeldLock {
  /** @param file path of the file, which is created if need be. @param mode of the file if it is created. */
  constructor(file: string, mode = 0o600) {
    super(open(file, mode));
    libc(`lock "${file}"`, 'flock', this.fd, LOCK_EX);
  }
}

/**
 * Waits for a lock while other work goes on.
 * @param file path of the file, which is created if need be. It may not be a link.
 * @param timeoutMs how long to wait.
 * @throws CniError TryAgainLater when another program holds it for longer.
 */
export async function acquireLock(file: string, timeoutMs: number): Promise<HeldLock> {
  const lock = new HeldLock(open(file, 0o600));
  try {
    const end = Date.now() + timeoutMs;
    for (let pause = shortestPause; !tryLock(file, lock.fd); pause = Math.min(2 * pause, longestPause)) {
      if (Date.now() >= end)
        throw new CniError(
          ErrorCode.TryAgainLater,
          `Another program has held the lock "${file}" for ${timeoutMs / 1000} seconds. Try again, or find out which one it is with "fuser ${file}"`,
        );
      await sleep(pause);
    }
    return lock;
  } catch (error) {
    lock.close();
    throw error;
  }
}

function open(file: string, mode: number): number {
  makeDirectory(dirname(file), 0o755);
  return openSync(file, constants.O_CREAT | constants.O_RDONLY | constants.O_NOFOLLOW, mode);
}

function tryLock(file: string, fd: number): boolean {
  try {
    libc(`lock "${file}"`, 'flock', fd, LOCK_EX | LOCK_NB);
    return true;
  } catch (error) {
    if (isKernelError(error, 'EAGAIN')) return false;
    throw error;
  }
}
