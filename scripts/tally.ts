/**
 * Reads AVA's TAP from standard input, of one run or of several in succession, prints a line for each test as
 * it comes, then what failed in full, and finally the tally: `N passed, N failed`, with `, N skipped` when
 * there are any. Exits with 1 when anything failed, when no test ran, or when a run did not finish.
 *
 *     (ava --tap || echo '# Run failed') | node scripts/tally.ts [FAILURES BEFORE [RUNS]]
 *
 * A line `# Run: HOW` between two runs tells how the second one differs, which is added to each of its tests.
 */

import { createInterface } from 'node:readline';

let passed = 0;
let skipped = 0;
let failed = Number(process.argv[2] ?? 0);
const runs = Number(process.argv[3] ?? 1);
const failures: string[] = [];
let how = '';
let detailed = false;
/** Runs that finished, and for the current one: how many tests ran, and how many failed. */
let ended = 0;
let ranHere = 0;
let failedHere = 0;

/** A failure of a run as a whole. */
function fail(message: string): void {
  failures.push(`✘ ${message}${how && ` [${how}]`}`);
  failed++;
}

for await (const line of createInterface({ input: process.stdin })) {
  const result = /^(not )?ok \d+ - (.*?)(?: # (SKIP|TODO).*)?$/.exec(line);
  if (result) {
    const [, not, name = '', directive] = result;
    const title = how ? `${name} [${how}]` : name;
    detailed = Boolean(not) && !directive;
    if (directive) skipped++;
    else if (not) failed++;
    else passed++;
    if (!directive) ranHere++;
    if (detailed) failedHere++;
    if (detailed) failures.push(`✘ ${title}`);
    console.log(`${directive ? '-' : not ? '✘' : '✔'} ${title}`);
  } else if (/^1\.\.\d+$/.test(line)) {
    ended++;
    detailed = false;
    if (ranHere === 0) fail('No test ran');
    ranHere = 0;
  } else if (detailed && line.startsWith(' ')) {
    failures.push(line);
  } else if (line === '# Run failed') {
    // This is all that AVA says about tests that never ended, and files that cannot be loaded.
    if (failedHere === 0) fail('The run failed, though none of its tests did');
  } else if (line.startsWith('# Run: ')) {
    how = line.slice('# Run: '.length);
    failedHere = 0;
  } else if (line.startsWith('#') && !/^# (tests|pass|fail|skip)/.test(line)) {
    console.log(line);
  }
}

how = '';
if (ended !== runs) fail(`${runs} runs were to come to their end, and ${ended} did`);
if (failures.length > 0) console.log(`\n${failures.join('\n')}`);
console.log(`\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
process.exitCode = failed > 0 ? 1 : 0;
