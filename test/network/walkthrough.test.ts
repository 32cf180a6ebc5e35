/** docs/walkthrough.md shows what its commands print. Runs once: no agent takes part. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { comparable, installAsReadmeSays, openTerminals, record } from '../support/recording.ts';

test('the commands of docs/walkthrough.md, after those of the README, print what it shows', async (t) => {
  const document = readFileSync(join(import.meta.dirname, '../../docs/walkthrough.md'), 'utf8');
  const terminals = await openTerminals(t);
  await installAsReadmeSays(terminals);
  const recorded = await record(document, terminals);
  t.deepEqual(comparable(recorded).split('\n'), comparable(document).split('\n'));
});
