/** Which tests to run for a mutant: those that reach it, the likeliest and the quickest first. */

import { createHash } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { basename, join } from 'node:path';

/** What a test file was observed to reach. */
export interface Reach {
  /** See {@link digestOf}. */
  readonly digest: string;
  readonly passed: boolean;
  readonly seconds: number;
  /** Keys of mutants. */
  readonly reached: readonly string[];
}

/** Test files that run together, and the seconds that they took without a mutant. */
export interface Run {
  readonly files: string[];
  readonly seconds: number;
}

/** How many seconds of unit tests run together for a mutant. */
const longestUnits = 8;

/** Digest of a test file and of the mutants that it may reach. */
export function digestOf(root: string, file: string, keys: readonly string[]): string {
  const hash = createHash('sha256').update(JSON.stringify(keys));
  hash.update(readFileSync(join(root, file)));
  return hash.digest('hex').slice(0, 16);
}

/**
 * Runs of tests for a mutant, in order: the unit tests together, then one network test after the other.
 * @param all what each test file reaches. @param key of the mutant. @param file that it is in.
 * @param limit seconds of network tests.
 * @param passed digests of test files that were run with it before and passed. They are left out, but those
 *   that have changed since come first.
 */
export function planFor(
  all: ReadonlyMap<string, Reach>,
  key: string,
  file: string,
  limit: number,
  passed: Readonly<Record<string, string>> = {},
): Run[] {
  const fitting = [...all]
    .filter(([name, reach]) => reach.passed && reach.reached.includes(key) && passed[name] !== reach.digest)
    .map(([name, { seconds, reached }]) => ({
      name,
      seconds,
      kinship: name in passed ? Number.POSITIVE_INFINITY : kinshipOf(name, file),
      breadth: reached.length,
    }));
  const [units, others] = [true, false].map((isUnit) =>
    fitting.filter(({ name }) => name.startsWith('test/unit/') === isUnit),
  ) as [typeof fitting, typeof fitting];
  // A test that reaches few mutants is likely to be about them.
  const nearest = within(
    longestUnits,
    units.toSorted((a, b) => compare(b.kinship, a.kinship) || a.breadth - b.breadth),
  );
  const quickest = within(
    limit,
    others.toSorted((a, b) => compare(b.kinship, a.kinship) || a.seconds - b.seconds),
  );
  const runs = quickest.map(({ name, seconds }) => ({ files: [name], seconds }));
  if (nearest.length === 0) return runs;
  const seconds = nearest.reduce((sum, one) => sum + one.seconds, 0);
  return [{ files: nearest.map(({ name }) => name), seconds }, ...runs];
}

function compare(a: number, b: number): number {
  return a === b ? 0 : a - b;
}

/** As many of a list, in order, as there is time for; if none fits, the first that does not take too long. */
function within<T extends { seconds: number }>(limit: number, list: readonly T[]): T[] {
  let left = limit;
  const fitting = list.filter(({ seconds }) => {
    if (seconds > left) return false;
    left -= seconds;
    return true;
  });
  return fitting.length > 0 ? fitting : list.filter(({ seconds }) => seconds < 4 * limit).slice(0, 1);
}

/**
 * How close a test's name is to the path of a source file: each word that they share counts once, or twice if
 * it is in the name of the file; "firewalld" counts as "firewall". This is the mean over the test's words.
 */
function kinshipOf(test: string, file: string): number {
  const wordsOf = (text: string) => text.split(/[/-]/);
  const isIn = (words: readonly string[], one: string) =>
    words.some((word) => one === word || (word.length > 4 && one.startsWith(word)));
  const [all, own] = [wordsOf(file.replace(/\.ts$/, '')), wordsOf(basename(file, '.ts'))];
  const words = basename(test, '.test.ts').split('-');
  const weights: number[] = words.map((one) => (isIn(own, one) ? 2 : isIn(all, one) ? 1 : 0));
  return weights.reduce((sum, one) => sum + one, 0) / words.length;
}
