/**
 * A copy of the project that has all mutants of a run at once, asleep, in its sources as in its executables:
 * nothing has to be built for the next one.
 */

import { execFileSync } from 'node:child_process';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  mkdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import { type Ended, run } from './child.ts';
import { instrument, type Mutant } from './mutants.ts';

/** Chosen so that no mutant is awake, but each that is reached is noted. */
const observing = -1;

/** Chosen so that no mutant is awake: their numbers begin with 1. */
const asleep = 0;

/** How long a test file may take without a mutant, in seconds. */
const longestTest = 600;

/** How a run of tests ended. */
export interface Outcome {
  readonly passed: boolean;
  readonly seconds: number;
  /** What failed first, as AVA names it: a test, or a file that ended too early or was killed. */
  readonly failure: string;
}

/** One copy. */
export class Workspace {
  private readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  /** Copies the project, puts the mutants in, and builds. @throws Error when the build fails. */
  async prepare(root: string, mutants: readonly Mutant[]): Promise<void> {
    rmSync(this.directory, { recursive: true, force: true });
    const tracked = ['ls-files', '--cached', '--others', '--exclude-standard'];
    const files = execFileSync('git', tracked, { cwd: root, encoding: 'utf8' }).trim().split('\n');
    for (const file of files) {
      mkdirSync(join(this.directory, dirname(file)), { recursive: true });
      copyFileSync(join(root, file), join(this.directory, file));
    }
    symlinkSync(join(root, 'node_modules'), join(this.directory, 'node_modules'));
    // On the first line, so that the lines keep their numbers.
    for (const [file, own] of Map.groupBy(mutants.entries(), ([, mutant]) => mutant.file))
      this.edit(file, (text) => `${this.chooser()} ${instrument(text, own)}`);
    writeFileSync(join(this.directory, 'reached'), '');
    chmodSync(join(this.directory, 'reached'), 0o666);
    this.choose(asleep);
    const stripped = join('build', process.arch, 'node');
    if (existsSync(join(root, stripped))) this.copyWithTime(join(root, stripped), stripped);
    const options = { cwd: this.directory, env: { ...process.env, CNI_SKIP_TRAINING: '1' }, seconds: 600 };
    const { passed, output } = await run([process.execPath, '--no-warnings', 'scripts/build.ts'], options);
    if (!passed) throw new Error(`The build with mutants failed:\n${output}`);
  }

  /** Runs test files with a mutant awake until the first test fails. @param limit in seconds. */
  test(mutant: number, files: readonly string[], limit: number): Promise<Outcome> {
    return this.ava(mutant + 1, ['--fail-fast', ...files], limit);
  }

  /**
   * Tells whether test files pass without any mutant.
   * @param failed a test in them that failed with a mutant: if it passes, the others need not be run.
   */
  async passes(files: readonly string[], limit: number, failed?: string): Promise<Outcome> {
    const title = failed?.split(' › ').at(-1);
    const alone = title ? await this.ava(asleep, [`--match=${title}`, ...files], limit) : undefined;
    return alone?.passed ? alone : this.ava(asleep, ['--fail-fast', ...files], limit);
  }

  /** Runs a test file without any mutant. @returns which ones it reaches. */
  async observe(file: string): Promise<Outcome & { reached: number[] }> {
    writeFileSync(join(this.directory, 'reached'), '');
    const outcome = await this.ava(observing, [file], longestTest);
    const lines = readFileSync(join(this.directory, 'reached'), 'utf8').trim().split('\n').filter(Boolean);
    return { ...outcome, reached: [...new Set(lines)].map((line) => Number(line) - 1) };
  }

  /**
   * Runs a program of the project.
   * @param mutant which one is awake; undefined for none.
   * @param args of Node.js. @param limit in seconds.
   */
  run(mutant: number | undefined, args: readonly string[], limit: number): Promise<Ended> {
    return this.start(mutant === undefined ? asleep : mutant + 1, args, limit);
  }

  private async ava(chosen: number, args: readonly string[], limit: number): Promise<Outcome> {
    const program = join(this.directory, 'node_modules/ava/entrypoints/cli.js');
    const { passed, output, elapsed } = await this.start(chosen, [program, '--tap', ...args], limit);
    const failure = /^not ok \d+ - (.*)/m.exec(output)?.[1] ?? `no end within ${Math.round(limit)} s`;
    return { passed, seconds: elapsed, failure: passed ? '' : failure };
  }

  private async start(chosen: number, args: readonly string[], seconds: number): Promise<Ended> {
    const options = { cwd: this.directory, env: process.env, seconds };
    this.choose(chosen);
    const ended = await run([process.execPath, '--no-warnings', ...args], options);
    this.choose(asleep);
    return ended;
  }

  private choose(number: number): void {
    writeFileSync(join(this.directory, 'chosen'), `${number}`);
  }

  /**
   * Code, on one line, that tells each mutant of a file whether it is awake. Their numbers begin with 1. All
   * are asleep where the choice cannot be read, as in a root directory that a test makes.
   */
  private chooser(): string {
    return `globalThis.__mutant ??= (() => {
  const { appendFileSync, existsSync, readFileSync } = process.getBuiltinModule('node:fs');
  const file = ${JSON.stringify(join(this.directory, 'chosen'))};
  const chosen = existsSync(file) ? Number(readFileSync(file, 'utf8')) : 0;
  if (chosen !== ${observing}) return (number) => number + 1 === chosen;
  const seen = new Set();
  return (number) => {
    if (!seen.has(number)) appendFileSync(${JSON.stringify(join(this.directory, 'reached'))}, (number + 1) + '\\n');
    seen.add(number);
    return false;
  };
})();`.replaceAll('\n', ' ');
  }

  private edit(file: string, change: (text: string) => string): void {
    const path = join(this.directory, file);
    writeFileSync(path, change(readFileSync(path, 'utf8')));
  }

  private copyWithTime(from: string, to: string): void {
    const path = join(this.directory, to);
    mkdirSync(dirname(path), { recursive: true });
    copyFileSync(from, path);
    const { atime, mtime } = statSync(from);
    utimesSync(path, atime, mtime);
  }
}
