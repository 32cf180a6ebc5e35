/**
 * How well pods are reached that the reference connected. It announces no addresses, so that neighbours may
 * still send to the pod that had an address before: it loses pods by itself. Where this suite did the rest of
 * the chain, no more of them may be lost.
 */

/** How many standard deviations are attributed to chance. */
const chance = 3;

class Tally {
  asked = 0;
  lost = 0;

  toString(): string {
    return `${this.lost} of ${this.asked}`;
  }
}

/** Counts pods that the reference has connected. */
export class ReferenceReach {
  private readonly alone = new Tally();
  private readonly mixed = new Tally();

  /** @param isAlone whether the reference has done the whole chain. */
  note(isAlone: boolean, isReached: boolean): void {
    const tally = isAlone ? this.alone : this.mixed;
    tally.asked++;
    if (!isReached) tally.lost++;
  }

  /** What it has seen, in words. */
  report(): string[] {
    return [
      `out of reach: ${this.alone} pods of the reference alone, ${this.mixed} that it connected and this suite did the rest for`,
    ];
  }

  /** What cannot be the reference's doing, in words. */
  excess(): string[] {
    const { alone, mixed } = this;
    // As if one more had been lost, so that the rate is not taken to be zero when no loss was seen.
    const expected = ((alone.lost + 1) / (alone.asked + 1)) * mixed.asked;
    if (mixed.lost <= expected + chance * Math.sqrt(expected)) return [];
    return [
      `Out of reach are ${mixed} pods that the reference connected and this suite did the rest for, but ${alone} of the reference alone`,
    ];
  }
}
