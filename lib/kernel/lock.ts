/** Locks between processes. Source: flock(2). */

import { closeSync, constants, fstatSync, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { makeDirectory } from '../directory.ts';
import { CniError, ErrorCode } from '../errors.ts';
import { fileError } from '../file.ts';
import { isKernelError, libc } from '../netlink/libc.ts';

const LOCK_EX = 2;
const LOCK_NB = 4;

/** How long to wait for a lock, in milliseconds. */
const longestWait = 10_000;
/** Longest pause between two attempts, in milliseconds. */
const longestPause = 8;

/**
 * A lock on an open file. It ends when the file is closed, at the latest when the process ends; a child that
 * inherits the descriptor holds it as well.
 */
export class FileLock {
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

/**
 * Waits for a lock while other work goes on.
 * @param file path of the file, which is created if need be; a symbolic link or FIFO is refused.
 * @param timeoutMs how long to wait.
 * @param mode of the file if it is created.
 * @throws CniError TryAgainLater when another process holds the lock for longer, IOFailure when the file
 *   cannot be locked at all.
 */
export async function acquireLock(file: string, timeoutMs = longestWait, mode = 0o600): Promise<FileLock> {
  return await lockOpened(openLockFile(file, mode), file, timeoutMs);
}

/** As {@link acquireLock}, for a directory, which must exist. @throws also the error of open(2). */
export async function acquireDirectoryLock(directory: string, timeoutMs: number): Promise<FileLock> {
  return await lockOpened(new FileLock(openSync(directory, constants.O_DIRECTORY)), directory, timeoutMs);
}

async function lockOpened(lock: FileLock, file: string, timeoutMs: number): Promise<FileLock> {
  try {
    await lockDescriptor(lock.fd, file, timeoutMs);
    return lock;
  } catch (error) {
    lock.close();
    throw isLockHeld(error) ? error : fileError('lock', file, error);
  }
}

/** Tells a lock that another process holds from one that cannot be taken at all. */
export function isLockHeld(error: unknown): boolean {
  return error instanceof CniError && error.code === ErrorCode.TryAgainLater;
}

/**
 * Takes a lock as {@link acquireLock} does, if it is free.
 * @returns undefined when another process holds it. @throws CniError IOFailure when the file cannot be locked
 *   at all.
 */
export function tryAcquireLock(file: string, mode = 0o600): FileLock | undefined {
  const lock = openLockFile(file, mode);
  let isOurs = false;
  try {
    isOurs = tryLockDescriptor(lock.fd, file);
  } catch (error) {
    throw fileError('lock', file, error);
  } finally {
    if (!isOurs) lock.close();
  }
  return isOurs ? lock : undefined;
}

/**
 * As {@link acquireLock}, for a file that is open already. The lock ends when it is closed.
 * @param file its path, for messages.
 */
export async function lockDescriptor(fd: number, file: string, timeoutMs = longestWait): Promise<void> {
  const end = performance.now() + timeoutMs;
  for (let pause = 0.5; !tryLockDescriptor(fd, file); pause = Math.min(pause * 2, longestPause)) {
    if (performance.now() >= end)
      throw new CniError(
        ErrorCode.TryAgainLater,
        `Another process has held the lock "${file}" for ${timeoutMs / 1000} seconds. ` +
          `Try again, or find out with "fuser ${file}" which process hangs`,
      );
    // Of random length, so that waiting processes do not try at the same moments.
    await sleep(pause * (0.5 + Math.random()));
  }
}

/** @throws CniError that names the file. */
function openLockFile(file: string, mode: number): FileLock {
  try {
    makeDirectory(dirname(file), 0o700);
    return new FileLock(openRegular(file, constants.O_CREAT | constants.O_RDONLY, mode));
  } catch (error) {
    throw fileError('lock', file, error);
  }
}

/**
 * Opens a file to be locked; a symbolic link or FIFO is refused.
 * @param flags of open(2). @param mode of the file if it is created.
 * @returns its descriptor. @throws the error of open(2), or an Error when it is not a regular file.
 */
export function openRegular(file: string, flags: number, mode: number): number {
  const fd = openSync(file, flags | constants.O_NOFOLLOW | constants.O_NONBLOCK, mode);
  if (fstatSync(fd).isFile()) return fd;
  closeSync(fd);
  throw new Error('It is not a regular file. Remove it');
}

/**
 * Locks an open file, unless somebody else has. The lock ends when it is closed.
 * @param file its path, for messages.
 * @returns false when somebody else has the lock.
 */
export function tryLockDescriptor(fd: number, file: string): boolean {
  try {
    libc(`lock "${file}"`, 'flock', fd, LOCK_EX | LOCK_NB);
    return true;
  } catch (error) {
    if (isKernelError(error, 'EAGAIN')) return false;
    throw error;
  }
}
