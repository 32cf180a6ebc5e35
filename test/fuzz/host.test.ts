import { join } from 'node:path';
import test from 'ava';
import { tryRun } from '../support/run.ts';
import { hostTargets } from './host-targets.ts';

/** Inputs that are made for each target, beside the first two of its samples and one in so many others. */
const sample = 2;
const every = 16;
/** The same inputs each time; `npm run fuzz` makes others. */
const seed = 1;
const fuzz = join(import.meta.dirname, '../../scripts/fuzz.ts');

test('hostile input does no harm on a host of its own', async (t) => {
  const names = hostTargets.map(({ name }) => name);
  const extent = ['--inputs', `${sample * names.length}`, '--every', `${every}`, '--seed', `${seed}`];
  const argv = [process.execPath, '--no-warnings', fuzz, '--target', names.join(), ...extent];
  const { exit, stdout, stderr } = await tryRun(argv, { timeout: 1_750_000 });
  t.is(exit, 0, `${stdout}${stderr}`);
  const tried = [...stdout.matchAll(/^ok (\S+):/gm)].map(([, name]) => name);
  t.deepEqual(tried, names, stdout);
});
