import { join } from 'node:path';
import test from 'ava';
import { run } from '../support/run.ts';

test('the bench runs, and prints both suites side by side', async (t) => {
  const bench = join(import.meta.dirname, '../../scripts/bench.ts');
  const output = await run([process.execPath, '--no-warnings', bench, '--quick', 'start', 'GC']);
  for (const line of [
    /^VERSION +\d+\.\d ms ± *\d+\.\d +\d+\.\d ms ± *\d+\.\d +\d+\.\d\d \(/m,
    /^start: until it reads its configuration +\d/m,
    /^GC of 100, half stale +\d/m,
    /^Peak memory of this suite: \d+ MiB/m,
  ])
    t.regex(output, line);
});
