import { join } from 'node:path';
import test from 'ava';
import { tryRun } from '../support/run.ts';
import { hostTargets } from './host-targets.ts';
import { tryTarget } from './target.ts';
import { targets } from './targets.ts';

const sample = 5000;
/** For each of those that take long. */
const hostSample = 20;
/** The same inputs each time; `npm run fuzz` makes others. */
const seed = 1;
const fuzz = join(import.meta.dirname, '../../scripts/fuzz.ts');

// One by one: the time that an input takes is that of the whole process.
for (const target of targets.filter((one) => !hostTargets.includes(one)))
  test.serial(`hostile input does no harm: ${target.name}`, async (t) => {
    const { finding: found } = await tryTarget(target, {
      inputs: Math.ceil(sample / targets.length),
      seed,
    });
    const again = `npm run fuzz -- --target ${target.name} --seed ${seed} --path ${found?.path}`;
    t.is(found && `${found.error} (input ${found.input.toString('base64')}, again: ${again})`, undefined);
  });

for (const { name } of hostTargets)
  test.serial(`hostile input does no harm on a host of its own: ${name}`, async (t) => {
    const options = ['--target', name, '--inputs', `${hostSample}`, '--seed', `${seed}`];
    const { exit, stdout, stderr } = await tryRun([process.execPath, '--no-warnings', fuzz, ...options], {
      timeout: 300_000,
    });
    t.is(exit, 0, `${stdout}${stderr}`);
    t.true(stdout.includes(`ok ${name}`), stdout);
  });
