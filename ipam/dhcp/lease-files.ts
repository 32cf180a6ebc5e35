/** The files in which the daemon saves its leases, one each. */

import { createHash } from 'node:crypto';
import { rmSync } from 'node:fs';
import { makeDirectory } from '../../lib/directory.ts';
import { errnoOf, fileError, readRegularFile } from '../../lib/file.ts';
import { listStateFiles, removeStateFile, writeStateFile } from '../../lib/state-file.ts';

/** A directory of leases. */
export class LeaseFiles {
  private readonly directory: string;

  /** Creates the directory if need be. @throws CniError naming it. */
  constructor(directory: string) {
    this.directory = directory;
    try {
      makeDirectory(directory, 0o700);
    } catch (error) {
      throw fileError('create', directory, error, ', or give another -socketpath');
    }
  }

  /**
   * Takes up every lease. A file that is of no use any more is removed; one that cannot be read stays.
   * @param restore reads a lease. @returns whether it is still of use. @throws Error when it is torn.
   */
  restoreAll(restore: (text: string) => boolean, log: (message: string) => void): void {
    for (const name of listStateFiles(this.directory)) {
      const file = `${this.directory}/${name}`;
      try {
        // A file without its final name was not finished.
        if (name.endsWith('.json') && restore(readRegularFile(file))) continue;
        rmSync(file, { force: true });
      } catch (error) {
        // A failed system call says nothing about the file, even one on the namespace that the file names.
        const forgotten = (errnoOf(error) ?? errnoOf((error as Error).cause)) === undefined;
        log(
          `Cannot take up the lease in "${file}", so it is ${forgotten ? 'forgotten' : 'left alone'}: ${(error as Error).message}`,
        );
        if (forgotten) rmSync(file, { force: true, recursive: true });
      }
    }
  }

  /** Writes a lease down, wholly or not at all. @throws CniError naming the file. */
  save(key: string, text: string): void {
    writeStateFile(this.fileOf(key), text);
  }

  /** Removes a lease's file, if it exists. @throws CniError naming the file. */
  remove(key: string): void {
    const file = this.fileOf(key);
    try {
      removeStateFile(file);
    } catch (error) {
      throw fileError('remove the lease in', file, error);
    }
  }

  private fileOf(key: string): string {
    return `${this.directory}/${createHash('sha256').update(key).digest('hex')}.json`;
  }
}
