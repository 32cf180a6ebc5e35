/** What a scenario is, and how the contenders are called in turn. */

import { type Contender, contenders } from './call.ts';
import { fewestForInterval, type Samples } from './measure.ts';

/** Something to measure, which gives one line of the table or several. */
export interface Scenario {
  name: string;
  measure(): Promise<Line[]>;
}

/** One line of the table, before anything is computed. */
export interface Line {
  name: string;
  unit: string;
  samples: Samples;
}

/** How often something is done, besides the number of rounds. */
export interface Pace {
  /** Rounds that do not count, 2 unless told otherwise. */
  warmUp?: number;
  /** After how many seconds no further round begins: a slow machine does fewer of them. */
  seconds?: number;
  /** How many rounds are done at least, however long they take. */
  fewest?: number;
}

/** Samples of all contenders, to be filled. */
export function emptySamples(): Samples {
  return { agent: [], alone: [], reference: [] };
}

/**
 * Runs something for each contender in turn, so that a slow spell of the machine affects all of them, and in
 * another order each time, so that none always suffers from what another one left for the kernel to do.
 * @param once runs it once; it is told which rounds count.
 */
export async function alternate(
  rounds: number,
  once: (contender: Contender, round: number, counts: boolean) => void | Promise<void>,
  { warmUp = 2, seconds = 15, fewest = fewestForInterval }: Pace = {},
): Promise<void> {
  const end = performance.now() + 1000 * seconds;
  for (let round = 0; round < warmUp + rounds; round++) {
    if (round >= warmUp + fewest && performance.now() > end) return;
    const first = round % contenders.length;
    for (const contender of [...contenders.slice(first), ...contenders.slice(0, first)])
      await once(contender, round, round >= warmUp);
  }
}

/** Sum of numbers. */
export const sum = (numbers: readonly number[]): number =>
  numbers.reduce((total, number) => total + number, 0);
