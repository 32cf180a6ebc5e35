/** Plugins for kinds of interfaces that the kernel may lack, killed and failed at a sample of their system calls. */

import { Random } from '../../scripts/random.ts';
import { kinds } from '../proof/kinds.ts';
import { prove } from '../proof/prove.ts';
import { guestSubjects } from '../proof/subjects.ts';
import { guestTest as test } from '../support/uml.ts';

for (const [name, subject] of Object.entries(guestSubjects))
  test(`${name}: a sample of kills and failures is survived`, async (t) => {
    const seed = Number(process.env.PROOF_SEED ?? 1);
    for (const kind of [kinds.kill!, kinds.fail!]) {
      const options = { share: 1, most: 2, random: new Random(seed), jobs: 1, log: () => {} };
      const { tried, failures } = await prove(kind, { [name]: subject }, options);
      t.true(tried > 0);
      t.deepEqual({ seed, failures }, { seed, failures: [] });
    }
  });
