/** Runs once: no agent takes part. */

import { join } from 'node:path';
import test from 'ava';
import { suites } from '../support/plugin.ts';
import { tryRun } from '../support/run.ts';

/** Bound by time, so that a slow machine makes fewer lives. */
const options = '--lives 400 --at-once 16 --minutes 1.5'.split(' ');

test('pods come and go under load, with kills, lost DELs and restarts: no address twice, nothing left', async (t) => {
  const soak = join(import.meta.dirname, '../../scripts/soak.ts');
  const { exit, stdout, stderr } = await tryRun([process.execPath, '--no-warnings', soak, ...options], {
    env: { CNI_BIN: suites.ours, CNI_REFERENCE: suites.reference },
    timeout: 400_000,
  });
  const [, seed] = /^Seed (\d+)/.exec(stdout) ?? [];
  const [, lives] = /^(\d+) lives in .* minutes, 0 violations$/m.exec(stdout) ?? [];
  t.log(`${lives} lives with seed ${seed}`);
  t.is(exit, 0, `${stdout}${stderr}`);
  t.true(Number(lives) > 0);
  // It has really done what it is about.
  for (const what of ['kill of process', 'lost DEL', 'wait for an address', 'pod reached'])
    t.regex(stdout, new RegExp(`^[\\d,]+ × ${what}$`, 'm'));
});
