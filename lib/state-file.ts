/**
 * Small files that plugins keep between verbs. What is found on disk may be torn, foreign or hostile: links
 * are not followed, only regular files are read, and a file is replaced as a whole, so that nobody ever reads
 * half of one.
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
import { errnoOf, fileError, readRegularFile } from './file.ts';

const { O_CREAT, O_EXCL, O_NOFOLLOW, O_WRONLY } = constants;

/** Far above what any plugin writes: a file this long is something else. In bytes. */
const largestSize = 1024 * 1024;

/** After how many milliseconds nobody is still writing a file. */
const longestWrite = 60_000;

/** A file that is not finished: the name it is to have, and the process that writes it. */
const temporaryName = /^(.+)\.(\d+)\.tmp$/;

/**
 * Reads a file without following a link.
 * @returns undefined when there is none.
 * @throws CniError that names the file when it is not a regular file of sensible size, or cannot be read.
 */
export function readStateFile(file: string): string | undefined {
  try {
    return readRegularFile(file, { limit: largestSize });
  } catch (error) {
    if (['ENOENT', 'ENOTDIR'].includes(errnoOf(error) ?? '')) return undefined;
    throw fileError('read', file, error);
  }
}

/**
 * Writes a file, in place of the one that is there, which is not followed if it is a link. The directory is
 * created if need be.
 * @param directoryMode of directories that are created.
 * @throws CniError that names the file when it cannot be written; then nothing of it stays.
 */
export function writeStateFile(file: string, text: string, directoryMode = 0o700): void {
  const temporary = `${file}.${process.pid}.tmp`;
  try {
    try {
      replace(file, temporary, text, directoryMode);
    } catch (error) {
      // To processes of another PID namespace this one looks dead, so that they may have removed the file.
      if (errnoOf(error) !== 'ENOENT') throw error;
      replace(file, temporary, text, directoryMode);
    }
  } catch (error) {
    rmSync(temporary, { force: true });
    throw fileError('write', file, error);
  }
}

function replace(file: string, temporary: string, text: string, directoryMode: number): void {
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
}

/**
 * Removes a file, if it exists, and what killed processes have left that were writing it.
 * @throws the error of unlink(2).
 */
export function removeStateFile(file: string): void {
  rmSync(file, { force: true });
  removeUnfinished(dirname(file), (name) => name === basename(file));
}

/**
 * Removes what {@link writeStateFile} has left in a directory whose process was killed, or whose disk was
 * full. What a process that is alive began within the last minute may still be written, and what cannot be
 * removed stays.
 * @param isOurs tells by a file's name whether it may go, for a directory that others may use too.
 */
export function removeUnfinished(directory: string, isOurs: (name: string) => boolean = () => true): void {
  let names: string[];
  try {
    names = readdirSync(directory);
  } catch {
    return; // Nothing was ever written there, or whoever reads it says what is wrong with it.
  }
  for (const name of names) {
    const [, target, pid] = temporaryName.exec(name) ?? [];
    if (target === undefined || !isOurs(target)) continue;
    try {
      const { mtimeMs } = lstatSync(`${directory}/${name}`);
      if (!existsSync(`/proc/${pid}`) || mtimeMs < Date.now() - longestWrite)
        unlinkSync(`${directory}/${name}`);
    } catch {
      // Somebody else was faster, or it is no file.
    }
  }
}
