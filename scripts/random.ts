/** Random choices that a seed makes repeatable, for what is tried by chance: kills, lives, hostile inputs. */

import { uniformInt } from 'pure-rand/distribution/uniformInt';
import { xoroshiro128plus } from 'pure-rand/generator/xoroshiro128plus';

/** A sequence of random choices. */
export class Random {
  private readonly generator;

  /** @param seed the same seed gives the same choices. */
  constructor(seed: number) {
    this.generator = xoroshiro128plus(seed);
  }

  /** An integer from 0 up to, but not including, a limit. */
  below(limit: number): number {
    return uniformInt(this.generator, 0, limit - 1);
  }

  /** An integer from low to high, both included. */
  between(low: number, high: number): number {
    return uniformInt(this.generator, low, high);
  }

  /** True with a probability between 0 and 1. */
  chance(probability: number): boolean {
    return this.below(2 ** 30) < probability * 2 ** 30;
  }

  /** One of the choices. @throws RangeError when there are none. */
  pick<T>(choices: readonly T[]): T {
    if (choices.length === 0) throw new RangeError('Nothing to pick from');
    return choices[this.below(choices.length)]!;
  }
}

/** A seed for those who do not give one. To be printed, so that a run can be repeated. */
export function newSeed(): number {
  return Math.floor(Math.random() * 2 ** 31);
}
