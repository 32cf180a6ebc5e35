/**
 * Proves that nothing is lost whenever the suite is killed or one of its system calls fails. Tries every
 * system call of each verb after the configuration was read, with every way in which a runtime may clean up
 * afterwards, and looks at the host from outside.
 *
 *     npm run prove -- --kind kill                     SIGKILL at every change
 *     npm run prove -- --kind fail                     the call fails, with every error that it can have
 *     npm run prove -- --kind refuse                   the kernel refuses a request, or cuts a list short
 *     npm run prove -- --kind stop                     SIGKILL of the agent at everything that it waits for
 *     npm run prove -- --kind kill --guest             ipvlan, vlan, vrf and dummy
 *     npm run prove -- --kind kill --share 10          ten percent of the cases, chosen by the seed
 *     npm run prove -- --kind fail --minutes 20        as many as fit into that time; the same command,
 *                                                      for the same commit, goes on with the others
 *     npm run prove -- --kind kill --subject ptp --only NAME    one case again
 *     npm run prove -- --kind kill --fail-fast         ends with the first case that fails
 *
 * It needs root, strace(1) and gcc(1). Everything happens in namespaces of its own, and with --guest in User
 * Mode Linux, whose calls take about ten times as long. With --jobs 2, two cases are tried at once, or two
 * guests run.
 */

import { parseArgs } from 'node:util';
import { kinds } from '../test/proof/kinds.ts';
import { type Proof, prove } from '../test/proof/prove.ts';
import { guestSubjects, subjects } from '../test/proof/subjects.ts';
import { hand, isInGuest, runInGuest } from './own-guest.ts';
import { ProofJournal } from './proof-journal.ts';
import { newSeed, Random } from './random.ts';
import { record } from './reliability.ts';

const { values } = parseArgs({
  options: {
    kind: { type: 'string' },
    guest: { type: 'boolean', default: false },
    subject: { type: 'string' },
    only: { type: 'string' },
    share: { type: 'string', default: '100' },
    seed: { type: 'string' },
    jobs: { type: 'string', default: '1' },
    'fail-fast': { type: 'boolean', default: false },
    minutes: { type: 'string' },
    record: { type: 'boolean', default: false },
  },
});

const kind = kinds[values.kind ?? ''];
const all = values.guest ? guestSubjects : subjects;
const chosen = values.subject ? { [values.subject]: all[values.subject] } : all;
if (!kind || Object.values(chosen).includes(undefined)) {
  console.error(
    `Give --kind as one of ${Object.keys(kinds).join(', ')}, and --subject, if at all, as one of ${Object.keys(all).join(', ')}`,
  );
  process.exit(1);
}

const seed = Number(values.seed ?? newSeed());
const share = Number(values.share) / 100;
const start = Date.now();
const limit = Number(values.minutes ?? Infinity) * 60_000;
const place = [values.guest && '-guest', isInGuest && `-${values.subject}`].filter(Boolean).join('');
const journal = values.minutes === undefined ? undefined : new ProofJournal(`proof-${kind.name}${place}`);

const { tried, left, missed, failures } = await (values.guest && !isInGuest
  ? proveInGuests()
  : prove(kind, chosen as typeof subjects, {
      share,
      random: new Random(seed),
      jobs: Number(values.jobs),
      log: console.log,
      isOver: ({ failures }) => Date.now() - start > limit || (values['fail-fast'] && failures.length > 0),
      ...(journal && { journal }),
      ...(values.only !== undefined && { only: values.only }),
    }));
const minutes = (journal?.minutes ?? 0) + (Date.now() - start) / 60_000;
journal?.noteMinutes(minutes);
if (isInGuest) hand({ tried, left, missed, failures });
else report();
process.exit(failures.length > 0 ? 1 : 0);

/** Tries each subject in a guest of its own. */
async function proveInGuests(): Promise<Proof> {
  const total: Proof = { tried: 0, left: 0, missed: 0, failures: [] };
  const queue = Object.keys(chosen).values();
  const work = async () => {
    for (const subject of queue) {
      const minutesLeft = Math.max(0, (limit - (Date.now() - start)) / 60_000);
      const { result } = await runInGuest([
        ...['--subject', subject, '--seed', String(seed), '--jobs', '1'],
        ...(limit < Infinity ? ['--minutes', String(minutesLeft)] : []),
      ]);
      if (result === undefined) throw new Error(`The proof of ${subject} has not come to its end`);
      const { tried, left, missed, failures } = result as Proof;
      total.tried += tried;
      total.left += left;
      total.missed += missed;
      total.failures.push(...failures);
    }
  };
  await Promise.all(Array.from({ length: Number(values.jobs) }, work));
  return total;
}

/** Prints what was found, and records it if everything was tried. */
function report(): void {
  console.log(
    `${tried} tried in ${minutes.toFixed(1)} minutes with seed ${seed}, ${missed} others not met, ${failures.length} failed`,
  );
  for (const { command } of failures) console.log(`  ${command}`);
  if (left > 0) console.log(`${left} are left${journal ? ' for the same command to go on with' : ''}`);
  if (!values.record || left > 0 || values.only !== undefined || values.subject !== undefined) return;
  record({
    part: values.guest ? `${kind!.part}: ${Object.keys(all).join(', ')}` : kind!.part,
    unit: kind!.unit,
    tried,
    failed: failures.length,
    command: `npm run prove -- --kind ${values.kind}${values.guest ? ' --guest' : ''}${share < 1 ? ` --share ${values.share} --seed ${seed}` : ''}`,
    minutes,
    ...(missed > 0 && { note: `besides, not met, as a process differs a little from run to run: ${missed}` }),
  });
}
