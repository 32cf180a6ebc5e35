/** Plugins for kinds of interfaces that the kernel may lack, killed at a sample of their system calls. */

import { Random } from '../../scripts/random.ts';
import { kinds } from '../proof/kinds.ts';
import { prove } from '../proof/prove.ts';
import { guestSubjects } from '../proof/subjects.ts';
import { guestTest as test } from '../support/uml.ts';

const seed = Number(process.env.PROOF_SEED ?? 1);

const kind = kinds.kill!;

test(`${kind.part}: a sample is survived`, async (t) => {
  const random = new Random(seed);
  // One subject, and one kind of fault: a guest takes a minute to list the points of a subject's verbs.
  const name = random.pick(Object.keys(guestSubjects));
  const options = { share: 1, most: 2, random, jobs: 1, log: () => {} };
  const { tried, failures } = await prove(kind, { [name]: guestSubjects[name]! }, options);
  t.true(tried > 0);
  t.deepEqual({ seed, name, failures }, { seed, name, failures: [] });
});
