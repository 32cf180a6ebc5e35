/** A sample of each kind of fault; `npm run prove` tries all of them. */

import test from 'ava';
import { newSeed, Random } from '../../scripts/random.ts';
import { kinds } from './kinds.ts';
import { prove } from './prove.ts';
import { subjects } from './subjects.ts';

for (const kind of Object.values(kinds))
  test(`${kind.part}: a sample is survived`, async (t) => {
    const seed = Number(process.env.PROOF_SEED ?? newSeed());
    // To list the cases of a chain, each of its verbs is run once.
    const random = new Random(seed);
    const name = random.pick(Object.keys(subjects));
    t.log(`seed ${seed}, subject ${name}; PROOF_SEED=${seed} tries the same again`);
    const chosen = { [name]: subjects[name]! };
    const options = { share: 1, most: 8, random, jobs: 1, log: () => {} };
    const { tried, failures } = await prove(kind, chosen, options);
    t.true(tried > 0);
    t.deepEqual(failures, []);
  });
