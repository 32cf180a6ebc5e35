/** Reading and removing files that may be damaged, endless like a device, or not regular files. */

import {
  closeSync,
  constants,
  fstatSync,
  openSync,
  readSync,
  rmSync,
  type Stats,
  statSync,
  unlinkSync,
} from 'node:fs';
import { CniError, ErrorCode } from './errors.ts';

const { O_RDONLY, O_NOFOLLOW, O_NONBLOCK } = constants;

/** How a file is read. */
export interface ReadOptions {
  /** Whether a symbolic link is followed; without it, one is refused. */
  readonly followLink?: boolean;
  /** Largest size that is accepted, in bytes. */
  readonly limit?: number;
}

/**
 * Reads a regular file that is not larger than it can sensibly be. It never blocks, as reading a FIFO would.
 * @throws the error of open(2) or read(2), or an Error when it is not a regular file or is too large.
 */
export function readRegularFile(
  path: string,
  { followLink = false, limit = 64 * 1024 }: ReadOptions = {},
): string {
  const fd = openSync(path, O_RDONLY | O_NONBLOCK | (followLink ? 0 : O_NOFOLLOW));
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile()) throw new Error('It is not a regular file');
    if (stat.size > limit) throw new Error(`It has ${stat.size} bytes, more than the ${limit} it may have`);
    // Asking for one byte more than expected finds the end in one call; files in /proc report a size of zero.
    const bytes = Buffer.allocUnsafe(stat.size > 0 ? stat.size + 1 : limit + 1);
    let length = 0;
    for (;;) {
      const count = readSync(fd, bytes, length, bytes.length - length, null);
      length += count;
      if (count === 0 || length === bytes.length || (stat.size > 0 && length === stat.size)) break;
    }
    if (length > limit) throw new Error(`It has more than the ${limit} bytes it may have`);
    return bytes.toString('utf8', 0, length);
  } finally {
    closeSync(fd);
  }
}

/** What a path leads to; undefined when it is nothing, or out of reach, as in a loop of links. */
export function statusAt(path: string): Stats | undefined {
  try {
    return statSync(path, { throwIfNoEntry: false });
  } catch {
    return undefined;
  }
}

/** Removes a file, or the directory that is in its place, if there is one. @throws the error of unlink(2). */
export function removeEntry(path: string): void {
  try {
    // Unlike rmSync, this needs no file descriptor: there may be none left.
    unlinkSync(path);
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return;
    if (errnoOf(error) !== 'EISDIR') throw error;
    rmSync(path, { recursive: true });
  }
}

/** The code of a failed system call, such as "ENOENT"; undefined for any other error. */
export function errnoOf(error: unknown): string | undefined {
  return (error as NodeJS.ErrnoException | undefined)?.code;
}

/** What a failed system call on a file means, and what to do about it. */
const remedies: Readonly<Record<string, string>> = {
  ENOSPC: 'The file system is full. Free space or inodes on it',
  EDQUOT: 'The disk quota is used up. Free space, or raise the quota',
  EROFS: 'The file system is read-only. Remount it writable, and look at the kernel log for why it became so',
  EACCES: 'Permission is denied. Give root access to it',
  EPERM: 'The operation is not permitted. Look for file attributes such as "immutable" with lsattr',
  ELOOP: 'It is a symbolic link, which is not followed here. Remove it',
  ENOENT: 'A directory above it does not exist and cannot be created. Make its parent writable',
  ENOTDIR:
    'It or a part of its path is not a directory, or is a symbolic link, which is not followed here. Remove it',
  EISDIR: 'It is a directory where a file is expected. Remove it',
  ENOTEMPTY: 'It is a directory where a file is expected. Remove it',
  EMFILE: 'The process has too many open files. Raise its limit',
  ENFILE: 'The host has too many open files. Raise fs.file-max',
  EIO: 'The disk failed. Look at the kernel log',
};

/**
 * An error of a system call on a file, in words that name the file and say what to do about it.
 * @param action what was tried, as in "write".
 * @param path of the file.
 * @param alternative another way out, as in `, or set "ipam.dataDir" elsewhere`.
 * @returns an error that has the one of the system call as its cause.
 */
export function fileError(action: string, path: string, error: unknown, alternative = ''): CniError {
  const { message } = error as Error;
  const remedy = remedies[errnoOf(error) ?? ''];
  return new CniError(
    ErrorCode.IOFailure,
    `Cannot ${action} "${path}". ${remedy ? `${remedy}${alternative}` : message}`,
    message,
    { cause: error },
  );
}

/**
 * Whether reading or listing failed because something else is in the place of what was looked for, or its
 * content is not as it should be, which the next call will find again.
 * @param error of {@link fileError}, or what reading the content threw.
 */
export function isOutOfPlace(error: unknown): boolean {
  const code = errnoOf((error as Error).cause);
  return code === undefined || ['ELOOP', 'ENOTDIR', 'EISDIR', 'ENAMETOOLONG'].includes(code);
}
