/**
 * Reads AVA's TAP from standard input, prints a line a test as it comes, then what failed in full, and last
 * the tally: `N passed, N failed`, with `, N skipped` when there are any. Exits with 1 when anything failed,
 * or when no test ran.
 *
 *     ava --tap | node scripts/tally.ts [FAILURES BEFORE]
 */

import { createInterface } from 'node:readline';

let passed = 0;
let skipped = 0;
let failed = Number(process.argv[2] ?? 0);
const failures: string[] = [];
let detailed = false;
let ended = false;

for await (const line of createInterface({ input: process.stdin })) {
  const result = /^(not )?ok \d+ - (.*?)(?: # (SKIP|TODO).*)?$/.exec(line);
  if (result) {
    const [, not, title = '', directive] = result;
    detailed = Boolean(not) && !directive;
    if (directive) skipped++;
    else if (not) failed++;
    else passed++;
    if (detailed) failures.push(`✘ ${title}`);
    console.log(`${directive ? '-' : not ? '✘' : '✔'} ${title}`);
  } else if (/^1\.\.\d+$/.test(line)) {
    ended = true;
  } else if (detailed && line.startsWith(' ')) {
    failures.push(line);
  } else if (line.startsWith('#') && !/^# (tests|pass|fail|skip)/.test(line)) {
    console.log(line);
  }
}

if (failures.length > 0) console.log(`\n${failures.join('\n')}`);
if (!ended || passed + failed === 0) {
  console.log('\nThe test run ended early.');
  failed++;
}
console.log(`\n${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`);
process.exitCode = failed > 0 ? 1 : 0;
