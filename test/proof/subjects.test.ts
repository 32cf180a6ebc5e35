/** Every plugin of the suite is among the subjects of the proofs, or is known not to be. */

import test from 'ava';
import { sourceSuite } from '../../scripts/suite.ts';
import { exceptions, guestSubjects, subjects } from './subjects.ts';

test('each plugin is in a chain that is killed and failed, or is excepted', (t) => {
  const chains = Object.values({ ...subjects, ...guestSubjects }).map(({ network }) => network.plugins);
  const tried = chains.flat().flatMap(({ type, ipam }) => [type, (ipam as { type?: string })?.type]);
  const { plugins, ipam } = sourceSuite();
  const all = [...plugins.keys(), ...ipam.keys()].sort();
  t.deepEqual(
    all.filter((name) => !tried.includes(name)),
    Object.keys(exceptions).sort(),
  );
});
