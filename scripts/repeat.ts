/**
 * Runs all tests several times, each time with the test files in another order, and tells which tests failed
 * in any of the runs.
 *
 *     npm run repeat -- --runs 10     with --record for the row in docs/reliability.md
 *
 * What each run printed is kept in build/. The same command, for the same commit, continues where it was
 * interrupted. A run takes about 16 minutes.
 */

import { spawn } from 'node:child_process';
import { closeSync, openSync, writeSync } from 'node:fs';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { parseArgs } from 'node:util';
import { ProofJournal } from './proof-journal.ts';
import { newSeed } from './random.ts';
import { record } from './reliability.ts';

const { values } = parseArgs({
  options: {
    runs: { type: 'string', default: '10' },
    seed: { type: 'string', default: String(newSeed()) },
    record: { type: 'boolean', default: false },
  },
});
const runs = Number(values.runs);
const root = join(import.meta.dirname, '..');
if (!Number.isInteger(runs) || runs < 1) {
  console.error(`--runs is "${values.runs}". Give it a whole number of at least 1`);
  process.exit(1);
}

/** @param order any text, which determines the order of files. @returns what failed; "" when nothing did. */
async function runTests(order: string): Promise<string> {
  const file = join(root, `build/repeat-${order}.log`);
  console.log(`  ${file}`);
  const output = openSync(file, 'w');
  const child = spawn(join(root, 'scripts/test'), {
    env: { ...process.env, CNI_TEST_ORDER: order },
    stdio: ['ignore', 'pipe', output],
  });
  const ended = new Promise<number | null>((resolve) => child.on('close', resolve));
  const failed = new Set<string>();
  let last = '';
  for await (const line of createInterface({ input: child.stdout! })) {
    if (line.startsWith('✘')) failed.add(line.slice(2));
    if (line !== '') last = line;
    writeSync(output, `${line}\n`);
  }
  const code = await ended;
  closeSync(output);
  console.log(`  ${last}`);
  return code === 0 ? '' : [...failed].join('; ') || last;
}

const journal = new ProofJournal('repeat');
const start = Date.now();
const before = journal.minutes;
const minutes = () => before + (Date.now() - start) / 60_000;
const flakes: string[] = [];
for (let run = 1; run <= runs; run++) {
  let problem = journal.verdictOf(`run ${run}`)?.problem;
  if (problem === undefined) {
    const order = `${Number(values.seed) + run}`;
    console.log(`Run ${run} of ${runs}, order ${order}: CNI_TEST_ORDER=${order} ./scripts/test`);
    problem = await runTests(order);
    journal.note(`run ${run}`, { isReached: true, problem });
    journal.noteMinutes(minutes());
  }
  if (problem !== '') flakes.push(`run ${run}: ${problem}`);
}
console.log(`${runs} runs, ${flakes.length} with failures`);
for (const flake of flakes) console.log(`  ${flake}`);
if (values.record)
  record({
    part: 'Whole runs of the tests, one after the other, with the files in random order',
    unit: 'runs',
    tried: runs,
    failed: flakes.length,
    command: `npm run repeat -- --runs ${runs}`,
    minutes: minutes(),
    ...(flakes.length > 0 && { note: flakes.join('; ') }),
  });
process.exit(flakes.length > 0 ? 1 : 0);
