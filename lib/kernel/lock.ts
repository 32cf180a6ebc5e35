/** A lock between processes. Source: flock(2). */

import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeDirectory } from '../directory.ts';
import { CniError, ErrorCode } from '../errors.ts';
import { isKernelError, libc } from '../netlink/libc.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;

/** How long a lock is waited for, in milliseconds. */
const longestWait = 10_000;
/** Longest pause between two attempts, in milliseconds. */
const longestPause = 8;

/**
 * Opens a file, creating it if need be, and waits for the lock on it. The lock ends when the file is closed, if only by the end of
 * the process.
 */
export class FileLock {
  /** Descriptor of the file; a child that inherits it holds the lock as well. */
  readonly fd: number;

  /**
   * Waits without end, and blocks the thread meanwhile: {@link FileLock.acquire} does neither.
   * @param file path of the file, or a descriptor of one that is locked. @param mode of the file if it is created.
   */
  constructor(file: string | number, mode = 0o600) {
    this.fd = typeof file === 'number' ? file : openLockFile(file, mode);
    if (typeof file === 'string') libc(`lock "${file}"`, 'flock', this.fd, LOCK_EX);
  }

  /**
   * Waits for the lock and leaves the thread to others meanwhile.
   * @param file path of the file; a symbolic link or FIFO is refused. @param mode of the file if it is created.
   * @throws CniError TryAgainLater when somebody holds the lock for ten seconds; the error of open(2).
   */
  static async acquire(file: string, mode = 0o600, wait = longestWait): Promise<FileLock> {
    const fd = openLockFile(file, mode);
    try {
      const until = Date.now() + wait;
      for (let pause = 0.5; !tryLock(fd, file); pause = Math.min(pause * 2, longestPause)) {
        if (Date.now() >= until)
          throw new CniError(
            ErrorCode.TryAgainLater,
            `Another process has held the lock "${file}" for ${wait / 1000} seconds. ` +
              'Try again, or find out with lsof which process hangs',
          );
        // Not quite regular, so that many who wait do not march in step.
        await sleep(pause * (0.5 + Math.random()));
      }
      return new FileLock(fd);
    } catch (error) {
      closeSync(fd);
      throw error;
    }
  }

  close(): void {
    closeSync(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}

function openLockFile(file: string, mode: number): number {
  makeDirectory(dirname(file), 0o755);
  const { O_CREAT, O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;
  const fd = openSync(file, O_CREAT | O_RDONLY | O_NOFOLLOW | O_NONBLOCK, mode);
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw new Error(`The lock "${file}" is not a regular file. Remove it`);
}

/** @returns false when somebody else has the lock. */
function tryLock(fd: number, file: string): boolean {
  try {
    libc(`lock "${file}"`, 'flock', fd, LOCK_EX | LOCK_NB);
    return true;
  } catch (error) {
    if (isKernelError(error, 'EAGAIN')) return false;
    throw error;
  }
}
