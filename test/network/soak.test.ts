/** Runs once: no agent takes part. */

import { join } from 'node:path';
import test from 'ava';
import { suites } from '../support/plugin.ts';
import { tryRun } from '../support/run.ts';

/** Bound by time, so that a slow machine makes fewer lives. */
const options = '--lives 300 --at-once 16 --minutes 1'.split(' ');

test('pods come and go under load, with kills, lost DELs and restarts: no address twice, nothing left', async (t) => {
  const soak = join(import.meta.dirname, '../../scripts/soak.ts');
  const { exit, stdout, stderr } = await tryRun([process.execPath, '--no-warnings', soak, ...options], {
    env: { CNI_BIN: suites.ours, CNI_REFERENCE: suites.reference },
    timeout: 900_000,
  });
  const [, seed] = /^Seed (\d+)/.exec(stdout) ?? [];
  const [, lives] = /^(\d+) lives in .* minutes, 0 violations$/m.exec(stdout) ?? [];
  t.log(`${lives} lives with seed ${seed}`);
  t.is(exit, 0, `${stdout}${stderr}`);
  t.true(Number(lives) > 0);
  // The events of the test have really happened; with few lives, rare ones may not have.
  const rare = Number(lives) >= 250 ? ['kill of process', 'lost DEL', 'wait for an address'] : [];
  for (const what of ['pod reached', ...rare]) t.regex(stdout, new RegExp(`^[\\d,]+ × ${what}$`, 'm'));
});
