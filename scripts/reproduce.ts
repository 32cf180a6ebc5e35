/**
 * Builds twice, in two clean copies of the work tree at different places, and compares everything that the
 * builds make, byte by byte:
 *
 *     npm run reproduce
 *     npm run reproduce -- --keep       leaves the copies, to look at
 *     npm run reproduce -- --record     and writes the outcome to docs/reliability.md
 *
 * Where something differs, it tells which file, how many bytes, and which part of the executable they are
 * from; the exit code is 1. See docs/supply-chain.md.
 */

import { execFileSync } from 'node:child_process';
import { cpSync, lstatSync, mkdirSync, mkdtempSync, readdirSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { parseArgs } from 'node:util';
import { apart } from './build/apart.ts';
import { record } from './reliability.ts';
import { compareTrees, type Difference } from './reproduce/compare.ts';

const root = join(import.meta.dirname, '..');
const { values } = parseArgs({
  options: { keep: { type: 'boolean', default: false }, record: { type: 'boolean', default: false } },
});

const start = performance.now();
const scratch = mkdtempSync(join(tmpdir(), 'reproduce-'));
try {
  const copies = ['one', 'another-place'].map((name) => join(scratch, name)) as [string, string];
  for (const copy of copies) copyTree(copy);
  for (const copy of copies) {
    console.log(`Building in "${copy}"`);
    execFileSync(process.execPath, [join(copy, 'scripts/build.ts'), '--reproducible'], {
      cwd: copy,
      stdio: ['ignore', 'ignore', 'inherit'],
    });
  }
  const [first, second] = copies;
  const differences = compareTrees(join(first, 'dist'), join(second, 'dist'));
  report(differences);
  if (differences.length > 0) {
    // The parts of the executable show where its bytes differ.
    const parts = compareTrees(join(first, 'build', process.arch), join(second, 'build', process.arch));
    report(parts.filter(({ file }) => isPart(file)));
    process.exitCode = 1;
  } else console.log('Both builds are the same, bytecode included');
  if (values.record)
    record({
      part: 'Two builds of the same sources at different places, bytecode included',
      unit: 'files',
      tried: filesIn(join(first, 'dist')),
      failed: differences.length,
      command: 'npm run reproduce',
      minutes: (performance.now() - start) / 60_000,
      note: 'Survived means here that a file was the same in both, byte by byte',
    });
} finally {
  if (values.keep) console.log(`The copies are in "${scratch}"`);
  else rmSync(scratch, { recursive: true, force: true });
}

/** Copies the files that git tracks, or would add, and links the installed npm packages. */
function copyTree(target: string): void {
  const flags = ['ls-files', '-z', '--cached', '--others', '--exclude-standard'];
  const files = execFileSync('git', flags, { cwd: root, encoding: 'utf8' }).split('\0').filter(Boolean);
  for (const file of files) {
    if (!lstatSync(join(root, file), { throwIfNoEntry: false })) continue;
    mkdirSync(dirname(join(target, file)), { recursive: true });
    cpSync(join(root, file), join(target, file));
  }
  symlinkSync(join(root, 'node_modules'), join(target, 'node_modules'));
}

/** How many files there are below a directory. */
function filesIn(directory: string): number {
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true });
  return entries.filter((entry) => !entry.isDirectory()).length;
}

/** True for what goes into the executable; other files of a build contain paths, which differ. */
function isPart(file: string): boolean {
  return (
    ['node', 'main.js', 'cni.js', ...Object.values(apart), 'loader.js'].includes(file) ||
    file.endsWith('.cache')
  );
}

function report(differences: readonly Difference[]): void {
  for (const { file, reason } of differences) console.log(`${file}: ${reason}`);
}
