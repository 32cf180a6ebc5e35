/** Samples, and what they say. */

/** Samples of one scenario; the reference is left out where it has nothing to compare with. */
export interface Samples {
  ours: number[];
  reference?: number[];
  /**
   * More is better, as for a rate: the ratio is inverted so that below 1 always means that this suite is
   * ahead.
   */
  rate?: boolean;
  /** How many processes the runtime starts for one sample. */
  starts?: number;
}

/** A figure: the median, and half of what the middle half of the samples spans. */
export interface Figure {
  median: number;
  spread: number;
  samples: number;
}

/** One line of the table. */
export interface Row {
  name: string;
  unit: string;
  ours: Figure;
  reference?: Figure;
  /** Ratio of medians, ours to the reference's, with the bounds of its 95 % interval. */
  ratio?: { value: number; low: number; high: number };
  /** The medians less what it takes to start the processes, in milliseconds. */
  beyondStart?: { ours: number; reference?: number };
}

/** What a start takes, in milliseconds. */
export interface Start {
  ours: number;
  reference: number;
}

const resamplings = 2000;

/** Makes a line of the table. @param start what a process takes that does nothing. */
export function summarize(name: string, unit: string, samples: Samples, start?: Start): Row {
  const { ours, reference, rate, starts } = samples;
  const row: Row = { name, unit, ours: figureOf(ours), ...(reference && { reference: figureOf(reference) }) };
  if (start && starts)
    row.beyondStart = {
      ours: row.ours.median - starts * start.ours,
      ...(row.reference && { reference: row.reference.median - starts * start.reference }),
    };
  if (!reference) return row;
  const ratio = rate
    ? (a: number[], b: number[]) => median(b) / median(a)
    : (a: number[], b: number[]) => median(a) / median(b);
  // The interval by resampling: how much would the ratio vary, had other calls of the same kind been
  // measured?
  const ratios = Array.from({ length: resamplings }, () => ratio(resample(ours), resample(reference))).sort(
    (a, b) => a - b,
  );
  row.ratio = {
    value: ratio(ours, reference),
    low: ratios[Math.floor(resamplings * 0.025)]!,
    high: ratios[Math.floor(resamplings * 0.975)]!,
  };
  return row;
}

/** The middle of the samples. */
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
