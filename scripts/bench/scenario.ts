/** What a scenario is, and how both suites are called in turn. */

import { bothSuites, type Suite } from './call.ts';
import type { Samples } from './measure.ts';

/** Something to measure, which gives one line of the table or several. */
export interface Scenario {
  name: string;
  measure(): Promise<Line[]> | Line[];
}

/** One line of the table, before anything is computed. */
export interface Line extends Samples {
  name: string;
  unit: string;
}

/** Rounds that do not count. */
export const warmUp = 2;

/** Samples of both suites, to be filled. */
export function emptySamples(): Required<Pick<Samples, Suite>> {
  return { ours: [], reference: [] };
}

/**
 * Runs something for both suites in turn, so that a slow spell of the machine meets both.
 * @param once says which rounds count.
 */
export function alternate(
  rounds: number,
  once: (suite: Suite, round: number, counts: boolean) => void,
): void {
  for (let round = 0; round < warmUp + rounds; round++)
    for (const suite of bothSuites) once(suite, round, round >= warmUp);
}

/** Sum of numbers. */
export const sum = (numbers: readonly number[]): number =>
  numbers.reduce((total, number) => total + number, 0);
