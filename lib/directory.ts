/** Making directories, and listing them. */

import { existsSync, mkdirSync, readdirSync } from 'node:fs';
import { dirname } from 'node:path';

/**
 * Makes a directory and those above it, unless they exist. Not Node's own recursive mkdir, which never ends
 * where a file system such as /proc returns ENOENT for a directory whose parent exists.
 * @param mode of every directory that is made.
 * @throws the error of mkdir(2).
 */
export function makeDirectory(path: string, mode: number): void {
  if (tryMake(path, mode)) return;
  const parent = dirname(path);
  // Somebody else may have made it meanwhile.
  if (!existsSync(parent)) makeDirectory(parent, mode);
  if (!tryMake(path, mode)) mkdirSync(path, { mode });
}

/** The names in a directory, in order; none when it cannot be read. */
export function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory).sort();
  } catch {
    return [];
  }
}

/** @returns false when the directory above is missing, or said to be. */
function tryMake(path: string, mode: number): boolean {
  try {
    mkdirSync(path, { mode });
    return true;
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException;
    if (code === 'EEXIST') return true;
    if (code === 'ENOENT') return false;
    throw error;
  }
}
