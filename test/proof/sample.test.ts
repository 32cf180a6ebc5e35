/** A sample of each kind of fault; `npm run prove` tries all of them. */

import test from 'ava';
import { Random } from '../../scripts/random.ts';
import { kinds } from './kinds.ts';
import { prove } from './prove.ts';
import { subjects } from './subjects.ts';

/** The same cases each time, of a short chain, unless told otherwise; `npm run prove` makes others. */
const seed = Number(process.env.PROOF_SEED ?? 13);

for (const kind of Object.values(kinds))
  test(`${kind.part}: a sample is survived`, async (t) => {
    // To list the cases of a chain, each of its verbs is run once.
    const random = new Random(seed);
    let tried = 0;
    // Some chains do nothing that can go wrong in this way.
    while (tried === 0) {
      const name = random.pick(Object.keys(subjects));
      t.log(`seed ${seed}, subject ${name}; PROOF_SEED=${seed} tries the same again`);
      const options = { share: 1, most: 8, random, jobs: 1, log: () => {} };
      const proof = await prove(kind, { [name]: subjects[name]! }, options);
      t.deepEqual(proof.failures, []);
      tried = proof.tried;
    }
  });

for (const [what, kind, subject, only] of [
  ['killed while it writes a reservation, host-local', 'kill', 'host-local', 'ADD/0-host-local/write'],
  ['without memory to come back to the host, ptp', 'fail', 'ptp', 'ADD/0-ptp/setns'],
  ['refused the move of its device, host-device', 'refuse', 'host-device', 'ADD/0-host-device/setlink'],
  ['refused to delete its rules, sbr', 'refuse', 'ptp', 'DEL/1-sbr/delrule'],
  ['whose answers of the kernel are lost, bridge', 'fail', 'nftables', 'ADD/0-bridge/recvfrom'],
] as const)
  test(`${what} leaves nothing`, async (t) => {
    t.log(`PROOF_SEED=${seed} tries the same again`);
    const options = { share: 1, most: 12, random: new Random(seed), jobs: 1, log: () => {}, only };
    const { tried, failures } = await prove(kinds[kind]!, { [subject]: subjects[subject]! }, options);
    // How often a plugin polls while it waits varies with the load, so that most of what is listed may not be reached.
    t.true(tried > 0);
    t.deepEqual(failures, []);
  });

test('DEL of tuning says when the kernel refuses to set a device back that stays, and the next one does it', async (t) => {
  const { network, ...device } = subjects['host-device']!;
  const tuning = subjects.iptables!.network.plugins.find(({ type }) => type === 'tuning')!;
  const chain = { ...device, network: { ...network, plugins: [...network.plugins, tuning] } };
  const only = 'DEL/1-tuning/setlink';
  const options = { share: 1, random: new Random(seed), jobs: 1, log: () => {}, only };
  const { tried, failures } = await prove(kinds.refuse!, { tuned: chain }, options);
  t.is(tried, 10);
  t.deepEqual(failures, []);
});
