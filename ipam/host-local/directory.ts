/**
 * A directory of ours, held open. Its entries are reached through the descriptor, and no entry leads anywhere
 * else: symbolic links are refused, even in place of the directory itself. Whoever can write to it must not
 * be able to make a plugin, which runs as root, write elsewhere.
 */

import {
  closeSync,
  constants,
  fstatSync,
  futimesSync,
  lstatSync,
  mkdirSync,
  openSync,
  readdirSync,
  unlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { makeDirectory } from '../../lib/directory.ts';
import { errnoOf, fileError, readRegularFile } from '../../lib/file.ts';

const { O_RDONLY, O_WRONLY, O_CREAT, O_EXCL, O_NOFOLLOW, O_DIRECTORY } = constants;

/** No file of ours is longer. */
const longestFile = 64 * 1024;

/** Names of entries must be single path segments; callers never take them from the contents of a file. */
export class Directory implements Disposable {
  /** The path that it was opened by, for messages. */
  readonly path: string;
  private readonly fd: number;

  private constructor(path: string, fd: number) {
    this.path = path;
    this.fd = fd;
  }

  /** Opens a directory. The directories above it may be symbolic links. @throws the error of open(2). */
  static open(path: string): Directory {
    return new Directory(path, openDirectory(path));
  }

  /** Opens a directory, undefined when it does not exist. */
  static openIfPresent(path: string): Directory | undefined {
    return unlessMissing(() => Directory.open(path));
  }

  /** Opens a directory, creating it and those above it if need be. */
  static openOrCreate(path: string, mode: number): Directory {
    const fd = unlessMissing(() => openDirectory(path));
    if (fd === undefined) makeDirectory(path, mode);
    return new Directory(path, fd ?? openDirectory(path));
  }

  /** Opens a directory within this one, creating it if need be. */
  openOrCreate(name: string, mode: number): Directory {
    const fd = unlessMissing(() => openDirectory(this.at(name)));
    if (fd === undefined) mkdirSync(this.at(name), mode);
    return new Directory(`${this.path}/${name}`, fd ?? openDirectory(this.at(name)));
  }

  /** Names of all entries. @throws CniError that names the directory. */
  names(): string[] {
    try {
      return readdirSync(`/proc/self/fd/${this.fd}`);
    } catch (error) {
      throw fileError('list', this.path, error);
    }
  }

  /**
   * Reads a file.
   * @returns undefined when it does not exist.
   * @throws Error when it is not a regular file, or cannot be read.
   */
  read(name: string): string | undefined {
    return unlessMissing(() => readRegularFile(this.at(name), { limit: longestFile }));
  }

  /**
   * Creates a file. Nothing is left of it when it cannot be written.
   * @returns false when there is an entry of that name.
   */
  create(name: string, text: string): boolean {
    let fd: number;
    try {
      fd = openSync(this.at(name), O_CREAT | O_EXCL | O_WRONLY | O_NOFOLLOW, 0o600);
    } catch (error) {
      if (errnoOf(error) === 'EEXIST') return false;
      throw error;
    }
    try {
      writeFileSync(fd, text);
    } catch (error) {
      this.remove(name);
      throw error;
    } finally {
      closeSync(fd);
    }
    return true;
  }

  /** Puts a new file in the place of whatever has that name. A link is replaced, not followed. */
  replace(name: string, text: string): void {
    this.remove(name);
    if (!this.create(name, text)) throw new Error(`"${this.path}/${name}" is written by another process`);
  }

  /** Removes a file, if it exists. A link itself is removed, a directory is not. */
  remove(name: string): void {
    unlessMissing(() => unlinkSync(this.at(name)));
  }

  /** Modification time of a file in nanoseconds, of the directory itself when no name is given. */
  modified(name?: string): bigint | undefined {
    const stat =
      name === undefined
        ? fstatSync(this.fd, { bigint: true })
        : lstatSync(this.at(name), { bigint: true, throwIfNoEntry: false });
    return stat && (name === undefined || stat.isFile()) ? stat.mtimeNs : undefined;
  }

  /** Sets the modification time of the directory. @param seconds since the epoch. */
  touch(seconds: number): void {
    futimesSync(this.fd, seconds, seconds);
  }

  /** Sets the modification time of a file that was just created. */
  touchFile(name: string, seconds: number): void {
    utimesSync(this.at(name), seconds, seconds);
  }

  close(): void {
    closeSync(this.fd);
  }

  [Symbol.dispose](): void {
    this.close();
  }

  private at(name: string): string {
    return `/proc/self/fd/${this.fd}/${name}`;
  }
}

function openDirectory(path: string): number {
  return openSync(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW);
}

function unlessMissing<T>(work: () => T): T | undefined {
  try {
    return work();
  } catch (error) {
    if (errnoOf(error) === 'ENOENT') return undefined;
    throw error;
  }
}
