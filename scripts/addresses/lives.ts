/** Lives of pods on three nodes, while one fault of etcd follows another. */

import { faults } from '../../test/support/etcd-faults.ts';
import type { Teardown } from '../../test/support/host.ts';
import { Lives } from '../../test/support/lives.ts';
import { nodesOf } from '../../test/support/whereabouts.ts';

/** The outcome. */
export interface Outcome {
  /** Pods that got an address. */
  readonly tried: number;
  readonly problems: readonly string[];
  readonly note: string;
}

/** How many pods live at a time, and how many come while as many go. There are addresses for all of them. */
const [atOnce, changing] = [150, 50];
const range = { range: '10.70.0.0/24', range_start: '10.70.0.1', range_end: '10.70.0.220' };

/**
 * Has pods come and go, with a fault for every few of them. After each fault, what etcd has is compared with
 * what was seen.
 * @param options.count of lives. @param options.each how many lives there are for each fault.
 * @param say is told about the progress.
 */
export async function liveWithFaults(
  t: Teardown,
  { count, each }: { count: number; each: number },
  say: (line: string) => void,
): Promise<Outcome> {
  const cluster = await nodesOf(t, 3, range);
  const lives = new Lives(cluster);
  const happened = new Map<string, number>();
  await lives.begin(Math.min(atOnce, count));
  const names = Object.keys(faults);
  for (let round = 0; lives.counts.lives < count && lives.problems.length === 0; round++) {
    const name = names[round % names.length]!;
    const target = Math.min(count, lives.counts.lives + each);
    const some = () => Math.max(1, Math.min(changing, target - lives.counts.lives));
    const { cutOff, happen } = faults[name]!;
    const others = [0, 1, 2].filter((node) => node !== cutOff);
    const [mend] = await Promise.all([happen(cluster), lives.churn(some(), others)]);
    // Each call on a node that is cut off runs into its timeout; four do so at once.
    const cut = cutOff === undefined ? undefined : lives.churn(4, [cutOff]);
    while (lives.counts.lives < target && lives.problems.length === 0) await lives.churn(some(), others);
    await cut;
    await mend();
    lives.problems.push(...(await lives.settle()));
    happened.set(name, (happened.get(name) ?? 0) + 1);
    say(`${name}: ${lives.counts.lives} lives so far, ${lives.size} now`);
  }
  await lives.end(Number.POSITIVE_INFINITY);
  lives.problems.push(...(await lives.settle()));
  const times = [...happened].map(([name, times]) => `${name} ${times}`).join(', ');
  const { lives: tried, refused } = lives.counts;
  return {
    ...{ tried, problems: lives.problems },
    note: `${atOnce} at a time of 220 addresses; ${times}; ${refused} ADDs were told to try again later`,
  };
}
