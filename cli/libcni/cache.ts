/**
 * The result cache: what ADD returned for each attachment, in libcni's format and place, so that this command
 * and libcni can each finish what the other began.
 */

import { lstatSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { AttachmentId } from '../../lib/attachment.ts';
import { makeDirectory } from '../../lib/directory.ts';
import {
  type CachedAttachment,
  CacheError,
  cacheFile,
  fromFile,
  readCacheFile,
  resultsIn,
  toFile,
} from '../../lib/networks/attachment-cache.ts';
import { inDirectory, listStateFiles, unlinkStateFile } from '../../lib/state-file.ts';

export { type CachedAttachment, readCached } from '../../lib/networks/attachment-cache.ts';

/** Where libcni keeps its state unless told otherwise. */
export const defaultCacheDir = '/var/lib/cni';

/** A file of the cache as a directory scan finds it. */
export interface CacheEntry {
  readonly file: string;
  /** When ADD was done. */
  readonly since: Date;
  readonly attachment?: CachedAttachment;
  /** What is wrong with it. */
  readonly error?: Error;
}

/** Every file of the cache. @throws CniError when the directory cannot be read. */
export function listCache(cacheDir: string): CacheEntry[] {
  const directory = resultsIn(cacheDir);
  return listStateFiles(directory)
    .filter((name) => !name.startsWith('.'))
    .sort()
    .flatMap((name) => readEntry(join(directory, name)));
}

function readEntry(file: string): CacheEntry[] {
  const status = lstatSync(file, { throwIfNoEntry: false });
  if (!status?.isFile()) return [];
  const entry = { file, since: status.mtime };
  try {
    const value = readCacheFile(file);
    if (value === undefined) return []; // It was removed meanwhile.
    const attachment = fromFile(value);
    return [
      attachment
        ? { ...entry, attachment }
        : { ...entry, error: new CacheError(file, 'is not in the format of libcni') },
    ];
  } catch (error) {
    if (error instanceof CacheError) return [{ ...entry, error }];
    throw error;
  }
}

/** Records an attachment. The file is replaced as a whole and is on disk when this returns. */
export function writeCached(cacheDir: string, attachment: CachedAttachment): void {
  const text = toFile(attachment);
  const directory = resultsIn(cacheDir);
  makeDirectory(directory, 0o700);
  inDirectory(directory, (path) => {
    // Unlike those of other state files it begins with a dot, as libcni takes any other file for a result.
    const temporary = join(path, `.${process.pid}.tmp`);
    try {
      rmSync(temporary, { force: true });
      writeFileSync(temporary, text, { flag: 'wx', mode: 0o600, flush: true });
      renameSync(temporary, join(path, basename(cacheFile(cacheDir, attachment))));
    } catch (error) {
      rmSync(temporary, { force: true });
      throw error;
    }
  });
}

/** Forgets an attachment. */
export function removeCached(cacheDir: string, id: AttachmentId): void {
  unlinkStateFile(cacheFile(cacheDir, id));
}
