/** The faults of `npm run deliberate` fit the sources, so that no change of those disables one unnoticed. */

import { join } from 'node:path';
import test from 'ava';
import { type Fault, faults, located, proofs } from '../../../scripts/deliberate/faults.ts';
import { kinds } from '../../proof/kinds.ts';

const root = join(import.meta.dirname, '../../..');

test('each fault has its one place in the sources', (t) => {
  t.is(located(root).length, faults.length);
});

test('each proof has a fault, and so has each kind of them', (t) => {
  const proved = new Set(faults.map(({ proof }) => proof));
  t.deepEqual([...proved].sort(), (Object.keys(proofs) as Fault['proof'][]).sort());
  for (const kind of Object.keys(kinds)) t.true(kind in proofs, kind);
});

test('a fault whose place is gone, or is there twice, is told', (t) => {
  const [one] = faults as [Fault];
  for (const [original, told] of [
    ['no such text', 'none'],
    ['const ', 'several'],
  ] as const)
    t.throws(() => located(root, [{ ...one, original }]), {
      message: `The fault "${one.what}" is for one place of "${one.file}" with "${original}", which has ${told}. Correct it in "scripts/deliberate/faults.ts"`,
    });
});
