/** The loader that is shipped: Debian's, except that it ignores the host's list of libraries to preload. */

import { readFileSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';

/** Where a host names libraries for all of its programs. Source: ld.so(8), FILES. */
const preloadFile = '/etc/ld.so.preload';

/** What is changed, for the bill of materials. */
export const loaderChange = `the path "${preloadFile}" is made empty, so that what a host preloads into its programs is not loaded`;

/**
 * Copies the loader without the name of that file, which lists libraries of the host: one that needs a newer
 * C library than ours would keep every plugin from starting. An empty path names no file, see
 * path_resolution(7).
 * @param directory where the copy goes. @returns its path.
 * @throws Error when the loader does not name the file exactly once.
 */
export function copyLoader(loader: string, directory: string): string {
  const bytes = readFileSync(loader);
  const at = bytes.indexOf(`${preloadFile}\0`);
  if (at < 0 || bytes.indexOf(preloadFile, at + 1) >= 0 || bytes.indexOf(preloadFile) < at)
    throw new Error(
      `"${loader}" does not name "${preloadFile}" exactly once, so that it cannot be told to ignore that file`,
    );
  bytes.fill(0, at, at + preloadFile.length);
  const copy = join(directory, basename(loader));
  writeFileSync(copy, bytes);
  return copy;
}
