/** Links and other things that are not regular files, put where files are read, written or removed. */

import { execFileSync } from 'node:child_process';
import {
  linkSync,
  lstatSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  symlinkSync,
  truncateSync,
  utimesSync,
} from 'node:fs';
import { createServer } from 'node:net';
import { dirname, join } from 'node:path';
import { place } from './target.ts';

/** What can be planted: each is a byte of an input. */
export const plantings = [0, 1, 2, 3, 4, 5, 6, 7, 8];

/** Puts at a path, in place of a file, what a byte says. @param outside a directory that must not change. */
export function plant(path: string, what: number, outside: string, content: Uint8Array): void {
  mkdirSync(dirname(path), { recursive: true });
  switch (what % plantings.length) {
    case 0:
      place(path, content);
      return;
    case 1:
      symlinkSync(join(outside, 'canary'), path);
      return;
    case 2:
      symlinkSync(outside, path);
      return;
    case 3:
      symlinkSync(join(outside, 'none-such'), path);
      return;
    case 4:
      mkdirSync(path);
      return;
    case 5:
      execFileSync('mkfifo', [path]);
      return;
    case 6:
      plantSocket(path, path.length < longestSocketPath ? `${path}.first` : join(outside, '../socket'));
      return;
    case 7:
      symlinkSync('/dev/zero', path);
      return;
    default:
      place(path, '');
      truncateSync(path, 2 ** 33);
  }
}

/** In bytes, with a few to spare. Source: unix(7). */
const longestSocketPath = 90;

/**
 * A socket at which nobody listens.
 * @param first a short path on the same file system, at which it is made.
 */
function plantSocket(path: string, first: string): void {
  // Closing removes the name that it was made with, but not a second one.
  const server = createServer().listen(first);
  linkSync(first, path);
  server.close();
}

/**
 * Makes a directory with a canary beside a target's own.
 * @param names of further files in it, which a link to it passes off as a target's own.
 * @param content of all of them.
 * @returns its path, and a check that it is as before.
 */
export function guarded(
  directory: string,
  names: readonly string[] = [],
  content = 'alive',
): [outside: string, check: () => void] {
  const outside = join(directory, '../outside');
  for (const name of ['canary', ...names]) {
    place(join(outside, name), content);
    // Old, as a claim that was marked for removal just now would be waited for.
    utimesSync(join(outside, name), 0, 0);
  }
  const before = pictureOf(outside);
  const check = () => {
    const now = pictureOf(outside);
    if (now !== before) throw new Error(`Something outside was changed: ${now}`);
  };
  return [outside, check];
}

/** Everything in a directory: names, modes, times and what files hold. */
function pictureOf(directory: string): string {
  const entries = readdirSync(directory, { recursive: true, encoding: 'utf8' }).sort();
  return JSON.stringify(
    ['.', ...entries].map((name) => {
      const path = join(directory, name);
      const { mode, mtimeMs, isFile } = lstatSync(path);
      return [name, mode, mtimeMs, isFile.call(lstatSync(path)) && readFileSync(path, 'utf8')];
    }),
  );
}
