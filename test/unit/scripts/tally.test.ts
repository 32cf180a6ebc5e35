import { join } from 'node:path';
import test from 'ava';
import { tryRun } from '../../support/run.ts';

const script = join(import.meta.dirname, '../../../scripts/tally.ts');

function tally(tap: string, ...args: string[]) {
  return tryRun([process.execPath, '--no-warnings', script, ...args], { stdin: tap });
}

const passing = 'TAP version 13\nok 1 - a\nok 2 - b # SKIP\n\n1..2\n# tests 2\n';
const failing = 'TAP version 13\nnot ok 1 - a\n  ---\n    message: broken\n  ...\n1..1\n';

test('counts what passed, failed and was skipped, and exits accordingly', async (t) => {
  const good = await tally(passing);
  t.deepEqual([good.exit, good.stdout.trimEnd().split('\n').at(-1)], [0, '1 passed, 0 failed, 1 skipped']);
  const bad = await tally(failing);
  t.deepEqual([bad.exit, bad.stdout.trimEnd().split('\n').at(-1)], [1, '0 passed, 1 failed']);
  t.regex(bad.stdout, /✘ a\n {2}---\n {4}message: broken/);
});

test('adds up several runs, and tells of which a failure is', async (t) => {
  const { exit, stdout } = await tally(`${passing}# Run: with the agent\n${failing}`, '1', '2');
  t.is(exit, 1);
  t.regex(stdout, /\n✘ a \[with the agent\]\n/);
  t.is(stdout.trimEnd().split('\n').at(-1), '1 passed, 2 failed, 1 skipped');
});

test('a run that does not come to its end, begin, or run a test, is a failure', async (t) => {
  for (const [tap, ...args] of [
    ['', '0'],
    ['TAP version 13\nok 1 - a\n', '0'],
    ['TAP version 13\n1..0\n', '0'],
    [passing, '0', '2'],
    [`${passing}# Run: with the agent\nTAP version 13\nok 1 - a\n`, '0', '2'],
    [`${passing}# Run: with the agent\nTAP version 13\n1..0\n`, '0', '2'],
    [`${passing}# Run failed\n`, '0'],
    [`${failing}# Run failed\n# Run: with the agent\n${passing}# Run failed\n`, '0', '2'],
  ] as const) {
    const { exit, stdout } = await tally(tap, ...args);
    t.is(exit, 1, tap);
    t.regex(stdout, /✘ (\d runs were to|No test ran|The run failed)[\s\S]*[1-9]\d* failed/, tap);
  }
  const { stdout } = await tally(`${failing}# Run failed\n`);
  t.is(stdout.trimEnd().split('\n').at(-1), '0 passed, 1 failed');
});
