/**
 * Reads AVA's TAP from standard input, of one run or of several behind one another, prints a line a test as
 * it comes, then what failed in full, and last the tally: `N passed, N failed`, with `, N skipped` when there
 * are any. Exits with 1 when anything failed, when no test ran, or when a run did not come to its end.
 *
 *     ava --tap | node scripts/tally.ts [FAILURES BEFORE [RUNS]]
 *
 * A line `# Run: HOW` between two runs tells how the second one differs, which is said of each of its tests.
 */

import { createInterface } from 'node:readline';

let passed = 0;
let skipped = 0;
let failed = Number(process.argv[2] ?? 0);
const failures: string[] = [];
let detailed = false;
const runs = Number(process.argv[3] ?? 1);
let ended = 0;
let how = '';

for await (const line of createInterface({ input: process.stdin })) {
  const result = /^(not )?ok \d+ - (.*?)(?: # (SKIP|TODO).*)?$/.exec(line);
  if (result) {
    const [, not, name = '', directive] = result;
    const title = how ? `${name} [${how}]` : name;
    detailed = Boolean(not) && !directive;
    if (directive) skipped++;
    else if (not) failed++;
    else passed++;
    if (detailed) failures.push(`✘ ${title}`);
    console.log(`${directive ? '-' : not ? '✘' : '✔'} ${title}`);
  } else if (/^1\.\.\d+$/.test(line)) {
    ended++;
    detailed = false;
  } else if (detailed && line.startsWith(' ')) {
    failures.push(line);
  } else if (line.startsWith('# Run: ')) {
    how = line.slice('# Run: '.length);
  } else if (line.startsWith('#') && !/^# (tests|pass|fail|skip)/.test(line)) {
    console.log(line);
  }
}

if (failures.length > 0) console.log(`\n${failures.join('\n')}`);
if (ended !== runs || passed + failed === 0) {
  console.log('\nThe test run ended early.');
  failed++;
}
console.log(`\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
process.exitCode = failed > 0 ? 1 : 0;
