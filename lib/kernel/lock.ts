/** A lock between processes. Source: flock(2). */

import { closeSync, constants, openSync } from 'node:fs';
import { dirname } from 'node:path';
import { makeDirectory } from '../directory.ts';
import { libc } from '../netlink/libc.ts';

const LOCK_EX = 2;

/**
 * Opens a file, making it if need be, and waits for the lock on it. The lock ends when the file is closed, if only by
 * the end of the process.
 */
export class FileLock {
  private readonly fd: number;

  /** @param file path of the file. @param mode of the file if it is made. */
  constructor(file: string, mode = 0o600) {
    makeDirectory(dirname(file), 0o755);
    this.fd = openSync(file, constants.O_CREAT | constants.O_RDONLY, mode);
    libc(`lock "${file}"`, 'flock', this.fd, LOCK_EX);
  }

  close(): void {
    closeSync(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }
}
