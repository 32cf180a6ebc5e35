/** Whether reservations can be written. */

import { closeSync, constants, existsSync, openSync, unlinkSync, writeSync } from 'node:fs';
import { dirname } from 'node:path';
import { errnoOf, fileError } from '../../lib/file.ts';

const { O_DIRECTORY, O_WRONLY } = constants;
/** Source: include/uapi/asm-generic/fcntl.h. */
const O_TMPFILE = 0o20000000 | O_DIRECTORY;

/**
 * Makes sure that reservations can be written, or a directory made for them.
 * @throws CniError when that is not so.
 */
export function refuseUnwritable(dataDir: string): void {
  let existing = dataDir;
  while (!existsSync(existing) && dirname(existing) !== existing) existing = dirname(existing);
  // Asking for permission is not enough: root has it even where the file system is read-only or full.
  try {
    const fd = openProbe(existing);
    try {
      writeSync(fd, 'probe');
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw fileError('write to', existing, error, ', or set "ipam.dataDir" elsewhere');
  }
}

/** Opens a file for writing that is gone when it is closed, at the latest when the process ends. */
function openProbe(directory: string): number {
  try {
    // Never has a name: nothing is left of it, even by a process that is killed.
    return openSync(directory, O_TMPFILE | O_WRONLY, 0o600);
  } catch (error) {
    // Some file systems, such as NFS, have no files without a name.
    if (errnoOf(error) !== 'ENOTSUP') throw error;
    const probe = `${directory}/.probe-${process.pid}-${performance.now()}`;
    const fd = openSync(probe, 'wx', 0o600);
    try {
      unlinkSync(probe);
      return fd;
    } catch (failure) {
      closeSync(fd);
      throw failure;
    }
  }
}
