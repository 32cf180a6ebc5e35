import test from 'ava';
import type { Call } from '../../../lib/cni/call.ts';
import { runAll, runBeside, runTogether, startBackground } from '../../../lib/cni/steps.ts';

/** As much of a call as steps need. @returns it, and what it warned of. */
function listener(): { call: Call; warnings: string[] } {
  const warnings: string[] = [];
  return { call: { warn: (message: string) => void warnings.push(message) } as unknown as Call, warnings };
}

const fail = (message: string) => () => {
  throw new Error(message);
};

test('every step runs; the first error is thrown, and the others are warned of', async (t) => {
  const { call, warnings } = listener();
  const done: string[] = [];
  const steps = [
    fail('first'),
    () => void done.push('a'),
    async () => fail('second')(),
    () => void done.push('b'),
  ];
  await t.throwsAsync(runAll(call, ...steps), { message: 'first' });
  t.deepEqual(done, ['a', 'b']);
  t.deepEqual(warnings, ['second']);
});

test('steps that succeed say nothing', async (t) => {
  const { call, warnings } = listener();
  await t.notThrowsAsync(runAll(call, () => {}));
  t.is(
    await runBeside(
      call,
      startBackground(async () => {}),
      () => 7,
    ),
    7,
  );
  t.deepEqual(warnings, []);
});

test('what runs in the background is waited for, and its error is thrown', async (t) => {
  const { call, warnings } = listener();
  const failing = startBackground(async () => fail('background')());
  await t.throwsAsync(
    runBeside(call, failing, () => 7),
    { message: 'background' },
  );
  await t.throwsAsync(runBeside(call, failing, fail('step')), { message: 'step' });
  t.deepEqual(warnings, ['background']);
  let isDone = false;
  const slow = startBackground(async () => {
    await new Promise((resolve) => setImmediate(resolve));
    isDone = true;
  });
  await t.throwsAsync(runBeside(call, slow, fail('step')), { message: 'step' });
  t.true(isDone);
});

test('steps that run together have all begun before one ends, and each ends', async (t) => {
  const { call, warnings } = listener();
  const seen: string[] = [];
  const step = (name: string, error?: string) => async () => {
    seen.push(`${name} begins`);
    await new Promise((resolve) => setImmediate(resolve));
    seen.push(`${name} ends`);
    if (error) fail(error)();
  };
  const steps = [step('a', 'first'), step('b', 'second'), step('c')];
  await t.throwsAsync(runTogether(call, ...steps), { message: 'first' });
  t.deepEqual(seen, ['a begins', 'b begins', 'c begins', 'a ends', 'b ends', 'c ends']);
  t.deepEqual(warnings, ['second']);
});
