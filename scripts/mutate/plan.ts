/** Which tests are to catch a mutant: those that reach it, the likeliest and the quickest first. */

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';

/** What a test file reaches, as it was observed. */
export interface Reach {
  /** See {@link digestOf}. */
  readonly digest: string;
  readonly passed: boolean;
  readonly seconds: number;
  /** Keys of mutants. */
  readonly reached: readonly string[];
}

/** How many seconds of network tests a mutant gets at most. */
const longest = 60;

/** Digest of a test file and of the mutants that it may reach. */
export function digestOf(root: string, file: string, keys: readonly string[]): string {
  const hash = createHash('sha256').update(JSON.stringify(keys));
  hash.update(readFileSync(join(root, file)));
  return hash.digest('hex').slice(0, 16);
}

/**
 * Runs of tests for a mutant, in order: the unit tests at once, then one network test after the other.
 * @param all what each test file reaches. @param key of the mutant. @param file that it is in.
 * @returns test files and the seconds that they took without a mutant.
 */
export function planFor(
  all: ReadonlyMap<string, Reach>,
  key: string,
  file: string,
): { files: string[]; seconds: number }[] {
  const fitting = [...all].filter(([, { passed, reached }]) => passed && reached.includes(key));
  const units = fitting.filter(([name]) => name.startsWith('test/unit/'));
  const total = units.reduce((sum, [, { seconds }]) => sum + seconds, 0);
  const runs = units.length > 0 ? [{ files: units.map(([name]) => name), seconds: total }] : [];
  let spent = 0;
  const others = fitting
    .filter(([name]) => !name.startsWith('test/unit/'))
    .map(([name, { seconds }]) => ({ name, seconds, kinship: kinshipOf(name, file) }))
    .toSorted((a, b) => b.kinship - a.kinship || a.seconds - b.seconds);
  for (const { name, seconds } of others) {
    if (spent > 0 && spent + seconds > longest) continue;
    spent += seconds;
    runs.push({ files: [name], seconds });
  }
  return runs;
}

/** How many words a test's name shares with the path of a source file. */
function kinshipOf(test: string, file: string): number {
  const words = new Set(file.replace(/\.ts$/, '').split(/[/-]/));
  return basename(test, '.test.ts')
    .split('-')
    .filter((word) => words.has(word)).length;
}
