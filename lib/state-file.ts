/**
 * Small files that plugins keep between verbs. What is found on disk may be torn, foreign or hostile: links are not followed, only
 * regular files are read, and a file is replaced as a whole, so that nobody ever reads half of one.
 */

import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  openSync,
  readSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { dirname } from 'node:path';
import { makeDirectory } from './directory.ts';

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_NONBLOCK, O_RDONLY, O_WRONLY } = constants;

/** Far above what any plugin writes: a file this long is something else. */
const maxSize = 1024 * 1024;

/**
 * Reads a file without following a link.
 * @returns undefined when there is none.
 * @throws Error when it is not a regular file of sensible size, or cannot be read.
 */
export function readStateFile(file: string): string | undefined {
  let fd: number;
  try {
    // A FIFO would block.
    fd = openSync(file, O_RDONLY | O_NOFOLLOW | O_NONBLOCK);
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'ENOENT' || code === 'ENOTDIR') return undefined;
    if (code === 'ELOOP')
      throw new Error(`"${file}" is a symbolic link, where a file of our own is expected. Remove it`);
    throw new Error(`Cannot read "${file}"`, { cause: error });
  }
  try {
    const stat = fstatSync(fd);
    if (!stat.isFile() || stat.size > maxSize)
      throw new Error(`"${file}" is not a regular file of at most ${maxSize} bytes. Remove it`);
    const bytes = Buffer.alloc(stat.size);
    let length = 0;
    for (let count = 1; count > 0 && length < bytes.length; length += count)
      count = readSync(fd, bytes, length, bytes.length - length, length);
    return bytes.toString('utf8', 0, length);
  } finally {
    closeSync(fd);
  }
}

/**
 * Writes a file, in place of the one that is there, which is not followed if it is a link. The directory is created if need be.
 * @param directoryMode of directories that are created.
 * @throws Error that names the file when it cannot be written; then nothing of it stays.
 */
export function writeStateFile(file: string, text: string, directoryMode = 0o700): void {
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    makeDirectory(dirname(file), directoryMode);
    rmSync(temporary, { force: true });
    const fd = openSync(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    try {
      fchmodSync(fd, 0o600);
      writeFileSync(fd, text, { flush: true });
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw new Error(
      `Cannot write "${file}". Make its directory writable, and see that the disk is not full`,
      {
        cause: error,
      },
    );
  }
}
