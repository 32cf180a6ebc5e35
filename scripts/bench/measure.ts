/** Samples, and what follows from them. */

import { type Contender, contenders } from './call.ts';

/** Samples of each contender; none where it was not measured, or lacks the feature. */
export type Samples = Record<Contender, number[]>;

/** A figure: the median, and half the interquartile range of the samples. */
export interface Figure {
  median: number;
  spread: number;
  samples: number;
}

/** Ratio of a median to the reference's. */
export interface Ratio {
  value: number;
  /** Bounds of its 95 % interval, unless there are too few samples for one. */
  interval?: { low: number; high: number };
}

/** What is compared with the reference. */
export const ours = ['agent', 'alone'] as const satisfies Contender[];

/** One line of the table. */
export interface Row {
  name: string;
  unit: string;
  figures: Partial<Record<Contender, Figure>>;
  /** Below 1 where this suite is ahead. */
  ratios: Partial<Record<(typeof ours)[number], Ratio>>;
}

const resamplings = 2000;
/** Fewer samples than this say too little about other calls. */
export const fewestForInterval = 6;

/** Whether a unit counts something per second, of which more is better. */
export function isRate(unit: string): boolean {
  return unit.endsWith('/s');
}

/** Makes a line of the table. Ratios of rates are inverted. */
export function summarize(name: string, unit: string, samples: Samples): Row {
  const row: Row = { name, unit, figures: {}, ratios: {} };
  for (const contender of contenders)
    if (samples[contender].length > 0) row.figures[contender] = figureOf(samples[contender]);
  const { reference } = samples;
  if (reference.length === 0) return row;
  for (const contender of ours) {
    const own = samples[contender];
    if (own.length > 0)
      row.ratios[contender] = isRate(unit) ? ratioOf(reference, own) : ratioOf(own, reference);
  }
  return row;
}

/**
 * Finds the interval by resampling: how much would the ratio vary if other, similar calls had been measured?
 */
function ratioOf(above: number[], below: number[]): Ratio {
  const value = median(above) / median(below);
  if (Math.min(above.length, below.length) < fewestForInterval) return { value };
  const ratios = Array.from(
    { length: resamplings },
    () => median(resample(above)) / median(resample(below)),
  ).sort((a, b) => a - b);
  return {
    value,
    interval: {
      low: ratios[Math.floor(resamplings * 0.025)]!,
      high: ratios[Math.floor(resamplings * 0.975)]!,
    },
  };
}

export function median(samples: readonly number[]): number {
  return quantile(samples, 0.5);
}

function figureOf(samples: number[]): Figure {
  return {
    median: median(samples),
    spread: (quantile(samples, 0.75) - quantile(samples, 0.25)) / 2,
    samples: samples.length,
  };
}

function quantile(samples: readonly number[], share: number): number {
  const sorted = [...samples].sort((a, b) => a - b);
  const at = (sorted.length - 1) * share;
  const low = sorted[Math.floor(at)]!;
  return low + (sorted[Math.ceil(at)]! - low) * (at - Math.floor(at));
}

function resample(samples: readonly number[]): number[] {
  return samples.map(() => samples[Math.floor(Math.random() * samples.length)]!);
}
