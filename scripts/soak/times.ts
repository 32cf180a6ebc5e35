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
}

/** What a call is taken to need when none has been measured, in milliseconds. */
const guess = 100;
/** How many calls tell what is usual. */
const recent = 15;
/** Calls of a verb below which there is no trend to speak of. */
const fewest = 1500;
/**
 * How much more the last quarter may take than the first, in relation to the same of the reference plugins,
 * which have the same load and share no code.
 */
const growthAtMost = 1.5;

/** The times of all calls that succeeded undisturbed. */
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
    return ['ADD', 'DEL'].flatMap((command) =>
      contenders.flatMap((contender) => {
        const times = this.series.get(`${contender} ${command}`)?.times ?? [];
        const quarter = Math.floor(times.length / 4);
        if (quarter === 0) return [];
        const [first, last] = [median(times.slice(0, quarter)), median(times.slice(-quarter))];
        return [{ contender, command, calls: times.length, first, last }];
      }),
    );
  }

  /** What takes longer and longer, in words. */
  growths(): string[] {
    const trends = this.trends();
    return trends.flatMap(({ contender, command, calls, first, last }) => {
      const yardstick = trends.find((one) => one.contender === 'reference' && one.command === command);
      if (!yardstick || contender === 'reference' || calls < fewest || yardstick.calls < fewest) return [];
      const growth = last / first / (yardstick.last / yardstick.first);
      return growth <= growthAtMost
        ? []
        : [
            `${command} with ${contender} took ${first.toFixed()} ms in the first quarter and ${last.toFixed()} ms in the last`,
          ];
    });
  }
}
