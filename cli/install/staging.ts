/** The plugins' directory while it is being changed: one process at a time, and everything prepared first. */

import { lstatSync, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { makeDirectory } from '../../lib/directory.ts';
import { missingCapabilities } from '../../lib/kernel/capabilities.ts';
import { acquireDirectoryLock } from '../../lib/kernel/lock.ts';
import { CommandError } from '../errors.ts';

/** How the names of the directories begin in which everything is prepared. */
const stagingPrefix = '.cni-install-';
/** A staging directory that did not change for this many milliseconds is abandoned. */
const longestPause = 10 * 60_000;
/** How long to wait for another process that changes the same directory, in milliseconds. */
const patienceMs = 60_000;

/**
 * Changes the plugins' directory, while no other process does.
 * @param change does the work. @param change.staging an empty directory on the same file system, which is
 *   removed afterwards.
 * @throws CommandError when the directory cannot be written to.
 */
export async function changeDirectory(binDir: string, change: (staging: string) => void): Promise<void> {
  try {
    makeDirectory(binDir, 0o755);
    using _ = await acquireDirectoryLock(binDir, patienceMs);
    removeUnfinished(binDir);
    const staging = mkdtempSync(join(binDir, stagingPrefix));
    try {
      change(staging);
    } finally {
      rmSync(staging, { recursive: true, force: true });
    }
  } catch (error) {
    throw explained(error, binDir);
  }
}

/** Removes what killed installations left behind. */
function removeUnfinished(binDir: string): void {
  for (const name of readdirSync(binDir).filter((one) => one.startsWith(stagingPrefix))) {
    const status = lstatSync(join(binDir, name), { throwIfNoEntry: false });
    if (status?.isDirectory() && status.mtimeMs < Date.now() - longestPause)
      rmSync(join(binDir, name), { recursive: true, force: true });
  }
}

function explained(error: unknown, binDir: string): Error {
  const reasons: Record<string, string> = {
    EROFS: 'its file system is read-only. Mount it writable',
    EACCES: denial(),
    EPERM: denial(),
    ENOSPC: 'its file system is full. Make room',
    ENOTDIR: 'it is not a directory, or lies below a file',
    EEXIST: 'it is not a directory',
  };
  const reason = reasons[(error as NodeJS.ErrnoException).code ?? ''];
  if (!reason) return error as Error;
  return new CommandError(`Cannot write to "${binDir}": ${reason}, or give another --bin-dir`, {
    cause: error,
  });
}

/** Why permission is denied, and what helps. */
function denial(): string {
  if (process.geteuid!() !== 0) return 'permission is denied. Run this as root';
  if (missingCapabilities().includes('CAP_DAC_OVERRIDE'))
    return 'permission is denied, and root lacks CAP_DAC_OVERRIDE here. Grant that, make root the owner of the directory';
  return 'permission is denied even to root. Look at its attributes with "lsattr -d" and at the log of the kernel';
}
