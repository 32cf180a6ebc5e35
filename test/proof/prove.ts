/** Tries the cases of a kind of fault, all or a sample. */

import type { Random } from '../../scripts/random.ts';
import { guestDirectory } from '../support/guest.ts';
import type { Verdict } from './kills.ts';
import type { Case, Kind } from './kinds.ts';
import type { Subject } from './subjects.ts';

/** The option by which a case is tried again in the same place, host or guest. */
const place = guestDirectory === undefined ? '' : ' --guest';

/** What is to be tried. */
export interface ProofOptions {
  /** Which share of the cases, from 0 to 1; chosen at random, but at least one for each subject. */
  readonly share: number;
  /** Chooses them. */
  readonly random: Random;
  /** How many hosts are worked on at once. */
  readonly jobs: number;
  /** Name of the one case that is wanted, or what the names of several begin with, up to a slash. */
  readonly only?: string;
  /** At most this many cases of each subject. */
  readonly most?: number;
  /** Cases that were tried before, and are not tried again. */
  readonly journal?: Journal;
  /** Whether to leave the rest for another time. @param proof what was found so far. */
  isOver?(proof: Proof): boolean;
  log(line: string): void;
}

/** Keeps what was found of each case, by "SUBJECT CASE". */
export interface Journal {
  verdictOf(key: string): Verdict | undefined;
  note(key: string, verdict: Verdict): void;
}

/** What was found. */
export interface Proof {
  /** Cases in which the fault was met. */
  tried: number;
  /** Cases that were not tried, as the time was over. */
  left: number;
  /** Cases in which the fault was not reached, as the process behaved differently this time. */
  missed: number;
  readonly failures: { readonly command: string; readonly problem: string }[];
}

/** Tries the cases of one kind. @param subjects by name. */
export async function prove(
  kind: Kind,
  subjects: Readonly<Record<string, Subject>>,
  options: ProofOptions,
): Promise<Proof> {
  const proof: Proof = { tried: 0, left: 0, missed: 0, failures: [] };
  for (const [name, subject] of Object.entries(subjects)) {
    const all = await kind.casesOf(subject, options.only);
    const chosen = choose(all, options);
    options.log(`${name}: ${chosen.length} of ${all.length} cases`);
    const queue = chosen.values();
    const work = () => workOff(kind, name, subject, queue, proof, options);
    await Promise.all(Array.from({ length: options.jobs }, work));
  }
  return proof;
}

function choose(cases: readonly Case[], { random, only, share, most = Infinity }: ProofOptions): Case[] {
  const all = cases.filter(({ name }) => !only || name === only || name.startsWith(`${only}/`));
  const wanted = Math.min(most, Math.ceil(all.length * share));
  // Takes the first of a shuffled list, but keeps their order.
  const order = [...all.keys()];
  for (let i = order.length - 1; i > 0; i--) {
    const j = random.below(i + 1);
    [order[i], order[j]] = [order[j]!, order[i]!];
  }
  const taken = new Set(order.slice(0, wanted));
  return all.filter((_, i) => taken.has(i));
}

async function workOff(
  kind: Kind,
  subjectName: string,
  subject: Subject,
  queue: Iterator<Case, unknown> & Iterable<Case>,
  proof: Proof,
  { log, journal, isOver = () => false }: ProofOptions,
): Promise<void> {
  let bench: Awaited<ReturnType<Kind['open']>> | undefined;
  for (const one of queue) {
    const key = `${subjectName} ${one.name}`;
    const known = journal?.verdictOf(key);
    if (!known && isOver(proof)) {
      proof.left++;
      continue;
    }
    if (!known) bench ??= await kind.open(subject);
    const verdict =
      known ??
      (await bench!
        .attempt(one)
        .catch((error: Error) => ({ isReached: true, problem: error.stack ?? error.message })));
    if (!known) journal?.note(key, verdict);
    const { isReached, problem } = verdict;
    if (isReached) proof.tried++;
    else proof.missed++;
    if (problem === '') continue;
    const command = `npm run prove -- --kind ${kind.name}${place} --subject ${subjectName} --only '${one.name}'`;
    proof.failures.push({ command, problem });
    log(`FAILED ${command}\n${problem.replace(/^/gm, '    ')}`);
    if (known) continue;
    await bench!.close();
    bench = undefined;
  }
  await bench?.close();
}
