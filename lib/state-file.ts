/**
 * Small files that plugins keep between verbs. What is found on disk may be damaged, foreign or hostile:
 * links are not followed, not even in place of the directory, only regular files are read, and a file is
 * replaced as a whole, so that nobody ever reads half of one.
 *
 * Nothing is flushed to disk: fsync(2) would stop all calls of the agent while the disk is slow. A power
 * failure may thus lose or damage what was written in the seconds before. No reader needs it: the containers
 * are gone as well, and a damaged file counts as missing.
 */

import {
  closeSync,
  constants,
  existsSync,
  fchmodSync,
  lstatSync,
  openSync,
  readdirSync,
  renameSync,
  rmSync,
  unlinkSync,
  writeFileSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { makeDirectory } from './directory.ts';
import { CniError, ErrorCode } from './errors.ts';
import { errnoOf, fileError, isOutOfPlace, readRegularFile } from './file.ts';

const { O_CREAT, O_DIRECTORY, O_EXCL, O_NOFOLLOW, O_RDONLY, O_WRONLY } = constants;

/** Far above what any plugin needs: a file this long is something else. In bytes. */
const largestSize = 1024 * 1024;

/** Milliseconds after which nobody can still be writing a file. */
const longestWrite = 60_000;

/** A file that is not finished: the name it will have, and the process that writes it. */
const temporaryName = /^(.+)\.(\d+)\.tmp$/;

/**
 * Reads a file without following a link.
 * @returns undefined when there is none.
 * @throws CniError that names the file when it is not a regular file of sensible size, or cannot be read.
 */
export function readStateFile(file: string): string | undefined {
  try {
    return inDirectory(dirname(file), (directory) =>
      readRegularFile(`${directory}/${basename(file)}`, { limit: largestSize }),
    );
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw fileError('read', file, error);
  }
}

/**
 * Writes a file, in place of an existing one, which is not followed if it is a link. The directory is created
 * if need be.
 * @param directoryMode of directories that are created. @param mode of the file.
 * @throws CniError that names the file when it cannot be written, or would be too large to be read again; the
 *   existing one is then left as it was.
 */
export function writeStateFile(file: string, text: string, directoryMode = 0o700, mode = 0o600): void {
  const size = Buffer.byteLength(text);
  if (size > largestSize)
    throw new CniError(
      ErrorCode.InvalidNetworkConfig,
      `"${file}" would have ${size} bytes, more than the ${largestSize} that can be read again. Make the configuration shorter that is kept in it`,
    );
  const write = () => {
    makeDirectory(dirname(file), directoryMode);
    inDirectory(dirname(file), (directory) => replace(`${directory}/${basename(file)}`, text, mode));
  };
  try {
    try {
      write();
    } catch (error) {
      // To processes in another PID namespace, this one looks dead, so they may have removed its unfinished
      // file.
      if (errnoOf(error) !== 'ENOENT') throw error;
      write();
    }
  } catch (error) {
    throw fileError('write', file, error);
  }
}

function replace(file: string, text: string, mode: number): void {
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    rmSync(temporary, { force: true });
    const fd = openSync(temporary, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW, 0o600);
    try {
      fchmodSync(fd, mode);
      writeFileSync(fd, text);
    } finally {
      closeSync(fd);
    }
    renameSync(temporary, file);
  } catch (error) {
    rmSync(temporary, { force: true });
    throw error;
  }
}

/** Does something in a directory, by a path that no link can lead elsewhere. @throws the error of open(2). */
export function inDirectory<T>(path: string, work: (directory: string) => T): T {
  const fd = openSync(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
  try {
    return work(`/proc/self/fd/${fd}`);
  } finally {
    closeSync(fd);
  }
}

/**
 * Lists the names in a directory of state files.
 * @returns none when there is no such directory.
 * @throws CniError that names the directory when it cannot be listed, as for a link in its place.
 */
export function listStateFiles(directory: string): string[] {
  try {
    return inDirectory(directory, (path) => readdirSync(path));
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return [];
    throw fileError('list', directory, error);
  }
}

/**
 * As {@link listStateFiles}, for a directory that may be somebody else's.
 * @param warn is told of something else in its place, where no plugin can have written anything.
 * @returns none in that case. @throws as that does.
 */
export function listIfDirectory(directory: string, warn: (message: string) => void = () => {}): string[] {
  try {
    return listStateFiles(directory);
  } catch (error) {
    if (!isOutOfPlace(error)) throw error;
    warn((error as Error).message);
    return [];
  }
}

/**
 * Removes a file, if it exists, and the unfinished ones that killed processes have left in writing it, for
 * which it lists the whole directory.
 * @throws CniError that names the file when it cannot be removed.
 */
export function removeStateFile(file: string): void {
  unlinkStateFile(file);
  removeUnfinished(dirname(file), (name) => name === basename(file));
}

/**
 * Removes only a file, if it exists. For callers that remove many and call {@link removeUnfinished} once, or
 * that leave nothing unfinished.
 * @throws CniError that names the file when it cannot be removed.
 */
export function unlinkStateFile(file: string): void {
  try {
    inDirectory(dirname(file), (directory) => unlinkSync(`${directory}/${basename(file)}`));
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw fileError('remove', file, error);
  }
}

/**
 * Removes the unfinished files that {@link writeStateFile} has left in a directory because its process was
 * killed, or the disk was full. Those that a live process began within the last minute are left, as they may
 * still be being written, and so are those that cannot be removed.
 * @param isOurs tells by a file's name whether it may be removed, for a directory that others may use too.
 */
export function removeUnfinished(directory: string, isOurs: (name: string) => boolean = () => true): void {
  try {
    inDirectory(directory, (path) => {
      for (const name of readdirSync(path)) {
        const [, target, pid] = temporaryName.exec(name) ?? [];
        if (target !== undefined && isOurs(target)) removeIfAbandoned(`${path}/${name}`, pid!);
      }
    });
  } catch {
    // Nothing was ever written there, or whoever reads from it will say what is wrong with it.
  }
}

function removeIfAbandoned(file: string, pid: string): void {
  try {
    const { mtimeMs } = lstatSync(file);
    if (!existsSync(`/proc/${pid}`) || mtimeMs < Date.now() - longestWrite) unlinkSync(file);
  } catch {
    // Somebody else was faster, or it is not a file.
  }
}

/**
 * True for what a crash or a full disk leaves of a file that was meant to hold a JSON object: nothing, zeros,
 * or the beginning of an object. Other text is somebody else's.
 */
export function isTorn(text: string): boolean {
  if (/^\0*$/.test(text)) return true;
  if (!text.startsWith('{')) return false;
  try {
    JSON.parse(text);
    return false;
  } catch {
    return true;
  }
}
