/** Compares two trees of files byte by byte. */

import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join, relative } from 'node:path';
import { privatePrefix } from '../../launcher/launch.ts';

/** The private directory's name. */
const digest = new RegExp(`${privatePrefix.replace('.', '\\.')}[0-9a-f]+`);

/** Something that is not the same in both trees. */
export interface Difference {
  /** Path relative to the trees. */
  readonly file: string;
  readonly reason: string;
}

/**
 * What differs between two trees: names, modes and contents of files; not their times. The digest in the name
 * of the private directory is ignored, so that a difference in one of its files does not make all differ.
 */
export function compareTrees(first: string, second: string): Difference[] {
  const [a, b] = [filesOf(first), filesOf(second)];
  const names = [...new Set([...a.keys(), ...b.keys()])].sort();
  return names.flatMap((file) => {
    const [one, other] = [a.get(file), b.get(file)];
    if (!one || !other) return { file, reason: `it is only in "${one ? first : second}"` };
    const reason = compareFiles(one, other);
    return reason ? { file, reason } : [];
  });
}

/** Paths of the files in a tree, by the names under which to compare them. */
function filesOf(directory: string): Map<string, string> {
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true });
  return new Map(
    entries
      .filter((entry) => entry.isFile())
      .map((entry) => {
        const path = join(entry.parentPath, entry.name);
        return [relative(directory, path).replace(digest, `${privatePrefix}*`), path];
      }),
  );
}

/** How two files differ; undefined when they do not. */
function compareFiles(first: string, second: string): string | undefined {
  const modes = [first, second].map((file) => (statSync(file).mode & 0o7777).toString(8));
  if (modes[0] !== modes[1]) return `its mode is ${modes.join(' and ')}`;
  const [a, b] = [readFileSync(first), readFileSync(second)] as const;
  if (a.equals(b)) return undefined;
  const size = a.length === b.length ? `${a.length} bytes` : `${a.length} and ${b.length} bytes`;
  let count = 0;
  let at = -1;
  for (let i = 0; i < Math.min(a.length, b.length); i++) {
    if (a[i] === b[i]) continue;
    count++;
    if (at < 0) at = i;
  }
  const where = at < 0 ? 'one is the beginning of the other' : `${count} differ, the first at ${at}`;
  return `it has ${size}, of which ${where}`;
}
