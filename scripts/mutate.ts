/**
 * Puts small faults into the code, one at a time, and sees whether a test fails. What no test notices is
 * either a gap in the tests or no fault: test/mutants.json says why, for those that are none.
 *
 *     npm run mutate                          240 mutants, chosen by chance
 *     npm run mutate -- --sample 400 --seed 11
 *     npm run mutate -- --minutes 20          begins no mutant after that time; the same call goes on later
 *     npm run mutate -- --again               tries those anew that no test had noticed
 *     npm run mutate -- --record              and writes the outcome to docs/reliability.md
 *
 * All mutants are built into one copy of the project, asleep; each test file is run once to see which of them
 * it reaches. What is known by now stands in build/mutants-<seed>.json. It needs root, as the tests do.
 */

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { parseArgs } from 'node:util';
import { keyOf, type Mutant, mutantsOf } from './mutate/mutants.ts';
import { digestOf, planFor, type Reach } from './mutate/plan.ts';
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
    record: { type: 'boolean', default: false },
  },
});
const seed = Number(values.seed);
const root = join(import.meta.dirname, '..');
const until = performance.now() + Number(values.minutes) * 60_000;

/** What became of a mutant. */
type Fate = 'killed' | 'survived' | 'unreached';

/** What is known by now. */
interface State {
  reach: Record<string, Reach>;
  fates: Record<string, Fate>;
  minutes: number;
}

/** A mutant that is no fault, as test/mutants.json has it. */
interface Equivalent {
  readonly mutant: string;
  readonly why: string;
}

/** Tests whose subject is not the code that is mutated, or the machine's speed. */
const others = /^test\/(?:unit\/(?:tree|scripts\/)|network\/(?:bench|soak|support|upgrade)\.)/;

const stateFile = join(root, `build/mutants-${seed}.json`);
const state: State = existsSync(stateFile)
  ? (JSON.parse(readFileSync(stateFile, 'utf8')) as State)
  : { reach: {}, fates: {}, minutes: 0 };
const sources = tracked('lib', 'plugins', 'ipam', 'agent').filter((file) => file.endsWith('.ts'));
const tests = tracked('test/unit', 'test/network', 'test/uml').filter(
  (file) => file.endsWith('.test.ts') && !others.test(file),
);
const chosen = chooseMutants();
const [keys, sample] = [[...chosen.keys()], [...chosen.values()]];
console.log(`Seed ${seed}: ${sample.length} mutants, ${tests.length} test files`);

const start = performance.now();
const scratch = mkdtempSync(join(tmpdir(), 'cni-mutants-'));
try {
  const workspaces = Array.from(
    { length: Number(values.workers) },
    (_, i) => new Workspace(join(scratch, `${i}`)),
  );
  await Promise.all(workspaces.map((workspace) => workspace.prepare(root, sample)));
  await each(workspaces, tests.filter(isUnknown), observe);
  if (!Object.values(state.reach).some(({ passed }) => passed))
    throw new Error('Every test fails even without a mutant. Find out why with "npx ava"');
  const left = [...keys.keys()].filter((i) => isToBeTried(state.fates[keys[i]!]));
  await each(workspaces, left, tryMutant);
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
state.minutes += (performance.now() - start) / 60_000;
save();
report();

/** Files of a git work tree that are below some directories. */
function tracked(...directories: string[]): string[] {
  const args = ['ls-files', '--', ...directories];
  return execFileSync('git', args, { cwd: root, encoding: 'utf8' }).trim().split('\n');
}

/**
 * Chooses mutants by a hash of the seed and their key: a change of the code changes the sample only where it
 * changes mutants. Of mutants with one key, as of the same line twice, the first is taken.
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

/** Hands pieces of work to whichever workspace has nothing to do, until the time is up. */
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

function isUnknown(file: string): boolean {
  return state.reach[file]?.digest !== digestOf(root, file, keys);
}

function isToBeTried(fate: Fate | undefined): boolean {
  return fate === undefined || (values.again && fate !== 'killed');
}

async function observe(workspace: Workspace, file: string): Promise<void> {
  const { passed, seconds, reached } = await workspace.observe(file);
  state.reach[file] = {
    digest: digestOf(root, file, keys),
    passed,
    seconds,
    reached: reached.map((i) => keys[i]!),
  };
  console.log(
    `${file}: ${Math.round(seconds)} s, reaches ${reached.length}${passed ? '' : ', FAILS without a mutant and is left out'}`,
  );
}

async function tryMutant(workspace: Workspace, i: number): Promise<void> {
  const key = keys[i]!;
  const runs = planFor(new Map(Object.entries(state.reach)), key, sample[i]!.file);
  let fate: Fate = runs.length > 0 ? 'survived' : 'unreached';
  const before = performance.now();
  for (const { files, seconds } of runs) {
    // One that makes a call wait for ever is noticed, too.
    const { passed } = await workspace.test(i, files, 30 + 4 * seconds);
    if (passed) continue;
    fate = 'killed';
    break;
  }
  state.fates[key] = fate;
  const took = Math.round((performance.now() - before) / 1000);
  const { file, line, original, replacement } = sample[i]!;
  console.log(`${fate} ${file}:${line} in ${took} s: ${original} -> ${replacement || '(left out)'}`);
}

function save(): void {
  mkdirSync(join(root, 'build'), { recursive: true });
  writeFileSync(stateFile, JSON.stringify(state, null, 1));
}

/** Prints the outcome, and records it if that is asked for and all are tried. */
function report(): void {
  const list = JSON.parse(readFileSync(join(root, 'test/mutants.json'), 'utf8')) as Equivalent[];
  const equivalent = new Set(list.map(({ mutant }) => mutant));
  const tried = keys.filter((key) => key in state.fates);
  const killed = tried.filter((key) => state.fates[key] === 'killed').length;
  const missed = tried.filter((key) => state.fates[key] !== 'killed');
  const survivors = missed.filter((key) => !equivalent.has(key));
  for (const key of survivors) console.log(`${state.fates[key]}: ${key}`);
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
      note: `Survived means here that the tests noticed it. ${missed.length - survivors.length} more are no faults, as test/mutants.json explains.`,
    });
  process.exitCode = survivors.length > counted / 10 ? 1 : 0;
}
