/** How long calls take, and whether that grows. */

import { type Contender, contenders } from '../bench/call.ts';
import { median } from '../bench/measure.ts';

/** Calls of one verb with one contender, in the order in which they ended. */
interface Series {
  readonly contender: Contender;
  readonly command: string;
  readonly times: number[];
}

/** The medians of the first and of the last quarter of the calls, in milliseconds. */
export interface Trend {
  readonly contender: Contender;
  readonly command: string;
  readonly calls: number;
  readonly first: number;
  readonly last: number;
  /** Standard error of the logarithm of their ratio. */
  readonly error: number;
}

/** How long a call is assumed to take when none has been measured, in milliseconds. */
const guess = 100;
/** How many recent calls show what is usual. */
const recent = 15;
/** With fewer calls of a verb than this, there is no trend to speak of. */
const fewest = 80;
/**
 * By what factor the last quarter may take longer than the first, relative to the same for the reference
 * plugins, which have the same load and share no code.
 */
const growthAtMost = 1.5;
/** By how many standard errors it must exceed that, as times vary a lot from call to call. */
const certainty = 3;
/** The verb of the reference that shows the effect of load on each verb; its older releases have no GC. */
const yardsticks: Readonly<Record<string, string>> = { ADD: 'ADD', DEL: 'DEL', GC: 'DEL' };

/** The times of all calls that succeeded without being disturbed. */
export class Times {
  private readonly series = new Map<string, Series>();

  add(contender: Contender, command: string, time: number): void {
    const key = `${contender} ${command}`;
    const one = this.series.get(key) ?? { contender, command, times: [] };
    one.times.push(time);
    this.series.set(key, one);
  }

  /** What a call has taken lately, in milliseconds. */
  usual(contender: Contender, command: string): number {
    const times = this.series.get(`${contender} ${command}`)?.times ?? [];
    return times.length === 0 ? guess : median(times.slice(-recent));
  }

  /** By verb, and then by contender. */
  trends(): Trend[] {
    return Object.keys(yardsticks).flatMap((command) =>
      contenders.flatMap((contender) => {
        const times = this.series.get(`${contender} ${command}`)?.times ?? [];
        const quarter = Math.floor(times.length / 4);
        if (quarter === 0) return [];
        const [early, late] = [times.slice(0, quarter), times.slice(-quarter)];
        const [first, last] = [median(early), median(late)];
        const error = Math.hypot(relativeError(early), relativeError(late));
        return [{ contender, command, calls: times.length, first, last, error }];
      }),
    );
  }

  /** What takes longer and longer, in words. */
  growths(): string[] {
    const trends = this.trends();
    return trends.flatMap(({ contender, command, calls, first, last, error }) => {
      const yardstick = trends.find(
        (one) => one.contender === 'reference' && one.command === yardsticks[command],
      );
      if (!yardstick || contender === 'reference' || calls < fewest || yardstick.calls < fewest) return [];
      const growth = Math.log(last / first) - Math.log(yardstick.last / yardstick.first);
      const isCertain = growth - certainty * Math.hypot(error, yardstick.error) > Math.log(growthAtMost);
      return !isCertain
        ? []
        : [
            `${command} with ${contender} took ${first.toFixed()} ms in the first quarter and ${last.toFixed()} ms in the last`,
          ];
    });
  }
}

/**
 * Standard error of the logarithm of a median, from the quartiles, as for the normal distribution, which the
 * logarithms of times come close to.
 */
function relativeError(times: readonly number[]): number {
  const sorted = times.map(Math.log).sort((a, b) => a - b);
  const at = (share: number) => sorted[Math.floor(share * (sorted.length - 1))]!;
  const deviation = (at(0.75) - at(0.25)) / 1.349;
  return (1.2533 * deviation) / Math.sqrt(sorted.length);
}
