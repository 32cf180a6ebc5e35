import { mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { waitForEnd } from '../../../agent/pipe.ts';
import { alone } from '../../../lib/group-commit.ts';
import { Programs, ProgramTimeoutError } from '../../../lib/kernel/programs.ts';
import { until } from '../../support/observe.ts';

const descriptors = () => readdirSync('/proc/self/fd').length;
const children = () => readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8');

test.serial('a child that cannot be waited for as it should is waited for all the same', async (t) => {
  const failing = () => {
    throw new Error('no descriptor is left');
  };
  const programs = new Programs({}, { waitForEnd: failing, together: alone });
  const before = descriptors();
  const { status, stdout } = await programs.run('sh', ['-c', 'sleep 0.1; echo done; exit 3']);
  t.deepEqual([status, stdout], [3, 'done\n']);
  t.is(descriptors(), before);
  t.is(children(), '', 'no zombie is left');
});

test.serial('a child has ended though what it has started goes on, with its descriptors', async (t) => {
  for (const sharing of [undefined, { waitForEnd, together: alone }]) {
    const before = descriptors();
    const { stdout } = await new Programs({}, sharing).run('sh', ['-c', 'sleep 1000 & echo $!']);
    t.true(process.kill(Number(stdout), 'SIGKILL'), 'it still runs');
    await until('the pipe is closed', async () => descriptors() === before);
  }
});

for (const [mode, sharing] of Object.entries({
  alone: undefined,
  sharing: { waitForEnd, together: alone },
})) {
  test.serial(`${mode}: arguments and environment arrive whole`, async (t) => {
    const environment = { EMPTY: '', UMLAUT: 'ü', LONG: 'x'.repeat(100_000) };
    const args = ['', 'two words', '日本', 'y'.repeat(100_000)];
    const script = 'printf "%s," "$@" "$EMPTY" "$UMLAUT" "$LONG"';
    const { stdout } = await new Programs({}, sharing).run('sh', ['-c', script, 'sh', ...args], {
      environment,
    });
    t.deepEqual(stdout.split(','), [...args, ...Object.values(environment), '']);
  });

  test.serial(
    `${mode}: a program that writes for nobody ends, though Node.js ignores that signal`,
    async (t) => {
      const { stdout } = await new Programs({}, sharing).run('sh', ['-c', 'kill -s PIPE $$; echo goes on']);
      t.is(stdout, '');
    },
  );

  test.serial(
    `${mode}: a program that does not end in time is killed, and nobody waits for it`,
    async (t) => {
      const runs: (number | undefined)[] = [];
      const programs = new Programs({}, sharing, ({ status }) => runs.push(status));
      const before = descriptors();
      // Its child holds its descriptors for longer, as it does itself when it hangs in the kernel.
      const script = 'echo "waits for the lock" >&2; sleep 60 & exec sleep 60';
      const start = performance.now();
      const error = await t.throwsAsync(programs.run('sh', ['-c', script], { timeoutMs: 5000 }), {
        instanceOf: ProgramTimeoutError,
        message: /^"sh" had not ended after 5 seconds, and was killed\. Try again/,
      });
      t.true(performance.now() - start < 30_000);
      t.deepEqual([error!.code, error!.details, runs], [11, 'waits for the lock', [undefined]]);
      t.deepEqual(await programs.run('sh', ['-c', 'exit 4']), { status: 4, stdout: '', stderr: '' });
      await until('it is gone', async () => children() === '');
      t.is(descriptors(), before);
    },
  );

  test.serial(`${mode}: children that run beside one another have the time of one`, async (t) => {
    const programs = new Programs({}, sharing);
    const start = performance.now();
    const outcomes = await Promise.allSettled(
      ['60', '0.1', '60'].map((seconds) => programs.run('sleep', [seconds], { timeoutMs: 8000 })),
    );
    t.deepEqual(
      outcomes.map(({ status }) => status),
      ['rejected', 'fulfilled', 'rejected'],
    );
    t.true(performance.now() - start < 30_000);
    await until('they are gone', async () => children() === '');
  });
}

test.serial('a child that closes all its descriptors early does not block the thread', async (t) => {
  const programs = new Programs({}, { waitForEnd, together: alone });
  const directory = mkdtempSync(join(tmpdir(), 'programs-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const go = join(directory, 'go');
  // It looks for half a minute at least, and only this thread can write the file.
  const script = 'exec 3>&-; for i in $(seq 600); do [ ! -e "$0" ] || exit 5; sleep 0.05; done';
  const child = programs.run('sh', ['-c', script, go]);
  await sleep(300);
  writeFileSync(go, '');
  t.is((await child).status, 5);
});
