/**
 * Puts small faults into the code, one at a time, and sees whether a test fails. A mutant that no test
 * notices is either a gap in the tests or not a fault: test/mutants.json says why, for those that are not.
 *
 *     npm run mutate                          240 mutants, chosen by chance
 *     npm run mutate -- --sample 400 --seed 11
 *     npm run mutate -- --minutes 20          begins no mutant after that time; the same command continues
 *     npm run mutate -- --again               tries those that no test noticed, with tests not run yet
 *     npm run mutate -- --again --only ip.ts  tries only those whose file, line or change contains that text
 *     npm run mutate -- --test FILE           runs only these of the test files that reach a mutant
 *     npm run mutate -- --seconds 60          gives each this much time for network tests, instead of 25 s
 *     npm run mutate -- --record              and writes the outcome to docs/reliability.md
 *
 * All mutants are built into one copy of the project, asleep; each test file is run once to see which of them
 * it reaches. A test that fails with a mutant must pass without it right afterwards, otherwise its failure
 * does not count. The results so far are kept in build/mutants-<seed>.json. It needs root, as the tests do.
 */

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { chmodSync, existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { keyOf, type Mutant, mutantsOf } from './mutate/mutants.ts';
import { digestOf, planFor, type Reach, type Run } from './mutate/plan.ts';
import { Workspace } from './mutate/workspace.ts';
import { newSeed } from './random.ts';
import { record } from './reliability.ts';

const { values } = parseArgs({
  options: {
    sample: { type: 'string', default: '240' },
    seed: { type: 'string', default: `${newSeed()}` },
    minutes: { type: 'string', default: '600' },
    workers: { type: 'string', default: '2' },
    again: { type: 'boolean', default: false },
    only: { type: 'string', default: '' },
    seconds: { type: 'string', default: '25' },
    test: { type: 'string', multiple: true },
    record: { type: 'boolean', default: false },
  },
});
const seed = Number(values.seed);
const root = join(import.meta.dirname, '..');
const until = performance.now() + Number(values.minutes) * 60_000;

/** What became of a mutant. */
interface Fate {
  readonly outcome: 'killed' | 'survived' | 'unreached';
  /** What failed when it was awake. */
  readonly by?: string;
  /** Digests of the test files that did not fail. */
  readonly passed: Readonly<Record<string, string>>;
}

/** What is known so far. */
interface State {
  reach: Record<string, Reach>;
  fates: Record<string, Fate>;
  minutes: number;
}

/** A mutant that is not a fault, as listed in test/mutants.json. */
interface Equivalent {
  readonly mutant: string;
  readonly why: string;
}

/** Tests whose subject is not the code that is mutated, but the build, say, or the machine's speed. */
const others =
  /^test\/(?:unit\/(?:tree|scripts\/|cni\/executable)|network\/(?:bare-host|bench|soak|support|upgrade)\.)/;

const stateFile = join(root, `build/mutants-${seed}.json`);
const state: State = existsSync(stateFile)
  ? (JSON.parse(readFileSync(stateFile, 'utf8')) as State)
  : { reach: {}, fates: {}, minutes: 0 };
/** Pages run in a browser, where no mutant can be woken. The launcher is in C. */
const sources = tracked('lib', 'plugins', 'ipam', 'agent', 'cli').filter(
  (file) => file.endsWith('.ts') && !file.startsWith('cli/draw/page/'),
);
const tests = tracked('test/unit', 'test/network', 'test/uml').filter(
  (file) => file.endsWith('.test.ts') && !others.test(file),
);
const explained = JSON.parse(readFileSync(join(root, 'test/mutants.json'), 'utf8')) as Equivalent[];
const equivalent = new Set(explained.map(({ mutant }) => mutant));
const chosen = chooseMutants();
const [keys, sample] = [[...chosen.keys()], [...chosen.values()]];
console.log(`Seed ${seed}: ${sample.length} mutants, ${tests.length} test files`);

const [start, spent] = [performance.now(), state.minutes];
const scratch = mkdtempSync(join(tmpdir(), 'cni-mutants-'));
// Some tests run executables as another user.
chmodSync(scratch, 0o755);
process.on('exit', () => rmSync(scratch, { recursive: true, force: true, maxRetries: 5 }));
for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1));
const workspaces = Array.from(
  { length: Number(values.workers) },
  (_, i) => new Workspace(join(scratch, `${i}`)),
);
await Promise.all(workspaces.map((workspace) => workspace.prepare(root, sample)));
await each(workspaces, tests.filter(isWanted).filter(isUnknown), observe);
if (!Object.values(state.reach).some(({ passed }) => passed))
  throw new Error('Every test fails even without a mutant. Find out why with "npx ava"');
const left = [...keys.keys()].filter((i) => isToBeTried(keys[i]!));
await each(workspaces, left, tryMutant);
save();
report();

/** The files below some directories that git tracks. */
function tracked(...directories: string[]): string[] {
  const args = ['ls-files', '--', ...directories];
  return execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim().split('\n');
}

/**
 * Chooses mutants by a hash of the seed and their key: a change of the code changes the sample only where it
 * changes mutants. Of several mutants with one key, as when a line occurs twice, the first is taken.
 */
function chooseMutants(): Map<string, Mutant> {
  const all = new Map<string, Mutant>();
  for (const file of sources) {
    const text = readFileSync(join(root, file), 'utf8');
    for (const mutant of mutantsOf(file, text).toReversed()) all.set(keyOf(mutant, text), mutant);
  }
  const rank = (key: string) => createHash('sha256').update(`${seed} ${key}`).digest('hex');
  const ranked = [...all].map(([key, mutant]) => ({ key, mutant, rank: rank(key) }));
  ranked.sort((a, b) => (a.rank < b.rank ? -1 : 1));
  return new Map(ranked.slice(0, Number(values.sample)).map(({ key, mutant }) => [key, mutant]));
}

/** Gives pieces of work to whichever workspace is idle, until the time is up. */
async function each<T>(
  workspaces: readonly Workspace[],
  pieces: readonly T[],
  work: (workspace: Workspace, piece: T) => Promise<void>,
): Promise<void> {
  const queue = [...pieces];
  await Promise.all(
    workspaces.map(async (workspace) => {
      while (queue.length > 0 && performance.now() < until) {
        await work(workspace, queue.shift()!);
        save();
      }
    }),
  );
}

function isWanted(test: string): boolean {
  return values.test?.includes(test) ?? true;
}

function isUnknown(file: string): boolean {
  return state.reach[file]?.digest !== digestOf(root, file, keys);
}

function isToBeTried(key: string): boolean {
  if (!key.includes(values.only)) return false;
  const fate = state.fates[key];
  return values.again ? fate !== undefined && fate.outcome !== 'killed' && !equivalent.has(key) : !fate;
}

async function observe(workspace: Workspace, file: string): Promise<void> {
  const { reached, ...seen } = await workspace.observe(file);
  // Noting what is reached writes to a file, which may disturb a test that counts what a process writes.
  const { passed, seconds, failure } = seen.passed ? seen : await workspace.passes([file], 600);
  state.reach[file] = {
    digest: digestOf(root, file, keys),
    passed,
    seconds,
    reached: reached.map((i) => keys[i]!),
  };
  const outcome = passed ? '' : `. It FAILS without a mutant and is left out: ${failure}`;
  console.log(`${file}: ${Math.round(seconds)} s, reaches ${reached.length}${outcome}`);
}

async function tryMutant(workspace: Workspace, i: number): Promise<void> {
  const { file, line, original, replacement } = sample[i]!;
  const key = keys[i]!;
  const passed = { ...state.fates[key]?.passed };
  const known = Object.entries(state.reach).filter(([name]) => isWanted(name));
  const runs = planFor(new Map(known), key, file, Number(values.seconds), passed);
  const before = performance.now();
  let by: string | undefined;
  for (const one of runs) {
    by = await failureOf(workspace, i, one);
    if (by !== undefined) break;
    for (const name of one.files) passed[name] = state.reach[name]!.digest;
  }
  const outcome = by !== undefined ? 'killed' : Object.keys(passed).length > 0 ? 'survived' : 'unreached';
  state.fates[key] = { outcome, passed, ...(by !== undefined && { by }) };
  const seconds = Math.round((performance.now() - before) / 1000);
  const change = `${original} -> ${replacement || '(left out)'}`;
  console.log(`${outcome} in ${seconds} s: ${file}:${line}: ${change}${by ? ` [${by}]` : ''}`);
}

/** @returns what fails with a mutant, but passes without it right afterwards. */
async function failureOf(
  workspace: Workspace,
  i: number,
  { files, seconds }: Run,
): Promise<string | undefined> {
  // A mutant with which a call never ends is noticed, too.
  const limit = 30 + 4 * seconds;
  for (let left = 3; left > 0; left--) {
    const { passed, failure } = await workspace.test(i, files, limit);
    if (passed) return undefined;
    const control = await workspace.passes(files, limit, failure);
    if (control.passed) return failure;
    console.log(`${files.join(' ')} fails without a mutant as well: ${control.failure}`);
  }
  return undefined;
}

function save(): void {
  state.minutes = spent + (performance.now() - start) / 60_000;
  mkdirSync(join(root, 'build'), { recursive: true });
  writeFileSync(stateFile, JSON.stringify(state, null, 1));
}

/** Prints the outcome, and records it if that is asked for and all mutants were tried. */
function report(): void {
  const tried = keys.filter((key) => key in state.fates);
  const killed = tried.filter((key) => state.fates[key]?.outcome === 'killed').length;
  const missed = tried.filter((key) => state.fates[key]?.outcome !== 'killed');
  const survivors = missed.filter((key) => !equivalent.has(key));
  for (const key of survivors) console.log(`${state.fates[key]?.outcome}: ${key}`);
  const counted = killed + survivors.length;
  const score = counted > 0 ? killed / counted : 1;
  console.log(
    `${tried.length} of ${keys.length} tried: ${killed} killed, ${survivors.length} survived, ` +
      `${missed.length - survivors.length} are no faults; score ${score.toFixed(3)}`,
  );
  if (values.record && tried.length === keys.length)
    record({
      part: 'Mutants: small faults in the code, of which a test must notice each',
      unit: 'mutants',
      tried: counted,
      failed: survivors.length,
      command: `npm run mutate -- --sample ${values.sample} --seed ${seed}`,
      minutes: state.minutes,
      note:
        `Survived means here that a test noticed it. Of ${tried.length} mutants, ${killed} were noticed and ` +
        `${missed.length - survivors.length} are no faults, as test/mutants.json explains: ` +
        `score ${killed}/${counted} = ${score.toFixed(2)}`,
    });
  process.exitCode = survivors.length > counted / 10 ? 1 : 0;
}
