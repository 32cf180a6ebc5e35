/**
 * A log file that many processes write to at once. Each line is one write at the end of the file, so that
 * none is torn. A full file becomes FILE.1, and older ones FILE.2 and so on: one process at a time does that,
 * and the others go on writing to the file that they have open.
 */

import {
  closeSync,
  constants,
  fchmodSync,
  fstatSync,
  lstatSync,
  openSync,
  readSync,
  renameSync,
  writeSync,
} from 'node:fs';
import { basename, dirname } from 'node:path';
import { makeDirectory } from '../../directory.ts';
import { errnoOf, fileError } from '../../file.ts';
import { tryLockDescriptor } from '../../kernel/lock.ts';
import { inDirectory } from '../../state-file.ts';

const { O_APPEND, O_CREAT, O_NOFOLLOW, O_NONBLOCK, O_RDWR } = constants;

const newline = 0x0a;
/** How many unfinished lines of other processes to wait for, one after another. */
const mostWaits = 20;
/** How many times a line is written, as its file may be removed meanwhile. */
const mostTries = 5;

/** How much is kept. */
export interface Rotation {
  /** Size beyond which no file grows, in bytes. */
  readonly maxSize: number;
  /** How many full files are kept, at least 1. */
  readonly keep: number;
}

/**
 * Appends a line to a log file, which is created, with its directory, if need be. Links, FIFOs and devices in
 * its place are refused. It waits for nobody.
 * @param line with its newline.
 * @throws CniError that names the file when the line could not be written, or the full file could not be put
 *   aside.
 */
export function appendLine(file: string, line: string, rotation: Rotation): void {
  try {
    makeDirectory(dirname(file), 0o700);
    inDirectory(dirname(file), (directory) =>
      append(`${directory}/${basename(file)}`, Buffer.from(line), rotation),
    );
  } catch (error) {
    throw fileError('write the log', file, error, ', or set another file in CNI_LOG or /etc/cni/log.json');
  }
}

function append(path: string, line: Buffer, rotation: Rotation, tries = 1): void {
  const fd = openSync(path, O_RDWR | O_APPEND | O_CREAT | O_NOFOLLOW | O_NONBLOCK, 0o600);
  try {
    const { size, nlink } = statLog(fd);
    const isFull = size > 0 && size + line.length > rotation.maxSize;
    if (!(isFull && tries === 1 && putAside(path, fd, rotation.keep, line))) {
      writeLine(fd, line);
      if (nlink > 0 && fstatSync(fd).nlink > 0) return;
    }
    if (tries === mostTries) throw new Error('It is removed as soon as it is there');
  } finally {
    closeSync(fd);
  }
  append(path, line, rotation, tries + 1);
}

/** @throws Error when it is not a regular file, or has other hard links. */
function statLog(fd: number) {
  const stat = fstatSync(fd);
  if (!stat.isFile()) throw new Error('It is not a regular file. Remove it');
  if (stat.nlink > 1) throw new Error('It has other hard links. Remove it');
  return stat;
}

/** Writes a line, on a line of its own even when a full disk has cut off the previous one. */
function writeLine(fd: number, line: Buffer): void {
  const bytes = endsCutOff(fd) ? Buffer.concat([Buffer.of(newline), line]) : line;
  for (let at = 0; at < bytes.length; ) at += writeSync(fd, bytes, at);
}

/** True when the last line has no end, and nobody is writing it. */
function endsCutOff(fd: number): boolean {
  for (let i = 0; i < mostWaits; i++) {
    const { size, mode } = fstatSync(fd);
    if (endsWithNewline(fd, size)) return false;
    // Changes nothing, but waits for a write that is under way, since both lock the inode. Source:
    // generic_file_write_iter and chmod_common of Linux.
    fchmodSync(fd, mode & 0o7777);
    if (fstatSync(fd).size === size) return true;
  }
  return false;
}

function endsWithNewline(fd: number, size: number): boolean {
  const last = Buffer.alloc(1);
  return size === 0 || readSync(fd, last, 0, 1, size - 1) === 0 || last[0] === newline;
}

/**
 * Renames a full file.
 * @param line written to the full file if it cannot be renamed.
 * @returns false when another process is doing that.
 */
function putAside(path: string, fd: number, keep: number, line: Buffer): boolean {
  try {
    if (!tryLockDescriptor(fd, path)) return false;
    const { dev, ino } = fstatSync(fd);
    const current = lstatSync(path, { throwIfNoEntry: false });
    // Another process has been faster.
    if (current?.dev !== dev || current.ino !== ino) return true;
    for (let i = keep - 1; i >= 1; i--) renameIfPresent(`${path}.${i}`, `${path}.${i + 1}`);
    renameIfPresent(path, `${path}.1`);
    return true;
  } catch (error) {
    writeLine(fd, line);
    throw error;
  }
}

function renameIfPresent(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') throw error;
  }
}
