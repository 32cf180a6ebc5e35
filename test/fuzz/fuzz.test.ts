import test from 'ava';
import { tryTarget } from './target.ts';
import { targets } from './targets.ts';

const sample = 5000;
/** The same inputs each time; `npm run fuzz` makes others. */
const seed = 1;

// One by one: the time that an input takes is that of the whole process.
for (const target of targets)
  test.serial(`hostile input does no harm: ${target.name}`, async (t) => {
    const found = await tryTarget(target, { inputs: Math.ceil(sample / targets.length), seed });
    const again = `npm run fuzz -- --target ${target.name} --seed ${seed} --path ${found?.path}`;
    t.is(found && `${found.error} (input ${found.input.toString('base64')}, again: ${again})`, undefined);
  });
