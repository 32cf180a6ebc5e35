/**
 * Runs the commands of docs/walkthrough.md on a host of their own, and writes what they print below them.
 *
 *     npm run walkthrough        after npm run build, as root; takes half a minute
 */

import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { installAsReadmeSays, openTerminals, record } from '../test/support/recording.ts';

const file = join(import.meta.dirname, '../docs/walkthrough.md');
const steps: (() => void | Promise<void>)[] = [];

try {
  const terminals = await openTerminals({ teardown: (step) => void steps.unshift(step) });
  await installAsReadmeSays(terminals);
  writeFileSync(file, await record(readFileSync(file, 'utf8'), terminals));
} finally {
  for (const step of steps) await step();
}
