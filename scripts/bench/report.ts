/** The report of the bench: rows for the terminal and for Markdown. */

import type { Footprint } from './footprint.ts';
import type { Row } from './measure.ts';

/** Everything that one run of the bench found out. */
export interface Report {
  machine: string;
  date: string;
  footprint: Footprint;
  rows: Row[];
}

/** Rows that the README has: single verbs are left to bench/results.md. */
export function forReadme({ name }: Row): boolean {
  return (
    !name.startsWith('plugin ') && !/^(life|chain).* (ADD|DEL)$/.test(name.replace(/ chain (ADD|DEL)$/, ''))
  );
}

export function formatRow({ name, unit, ours, reference, ratio, beyondStart }: Row): string {
  const figure = (one: Row['ours'] | undefined) =>
    (one ? `${one.median.toFixed(1)} ${unit} ±${one.spread.toFixed(1).padStart(4)}` : '–').padStart(18);
  return `${(name + direction(unit)).padEnd(64)} ${figure(ours)} ${figure(reference)}   ${describeRatio(ratio).padEnd(21)} ${describeSplit(beyondStart)}`;
}

export function markdown({ machine: where, date, footprint: size }: Report, rows: readonly Row[]): string {
  const figure = (one: Row['ours'] | undefined, unit: string) =>
    one ? `${one.median.toFixed(1)} ${unit}` : '–';
  const lines = rows.map(
    ({ name, unit, ours, reference, ratio, beyondStart }) =>
      `| ${name}${direction(unit)} | ${figure(ours, unit)} | ${figure(reference, unit)} | ${describeRatio(ratio).replace(/^\S+/, '**$&**')} | ${describeSplit(beyondStart)} |`,
  );
  return [
    `Measured ${date} on ${where}. Medians, and their ratio with its 95 % interval. **A ratio below 1 means that this suite is ahead**: it is of times, ` +
      'and inverted for throughput. The last column is what remains of both medians without the time to start the processes, ' +
      'as VERSION shows it.',
    '',
    '| | this suite | reference | ratio (below 1: ahead) | beyond start-up |',
    '|---|---:|---:|---:|---:|',
    ...lines,
    '',
    describeFootprint(size),
    '',
  ].join('\n');
}

function describeRatio(ratio: Row['ratio']): string {
  return ratio ? `${ratio.value.toFixed(2)} (${ratio.low.toFixed(2)}–${ratio.high.toFixed(2)})` : '';
}

function describeSplit(split: Row['beyondStart']): string {
  if (!split) return '';
  const figure = (time: number | undefined) => (time === undefined ? '–' : Math.max(time, 0).toFixed(1));
  return `${figure(split.ours)} : ${figure(split.reference)} ms`;
}

export function describeFootprint({ ours, reference }: Footprint): string {
  const megabytes = (one: number) => `${(one / 1e6).toFixed(0)} MB`;
  const memory = (one: Footprint['ours']) =>
    `${(one.peak / 2 ** 20).toFixed(0)} MiB, of which ${(one.own / 2 ** 20).toFixed(0)} MiB are the process's own and the rest pages of files that all processes share`;
  return (
    `Peak memory of this suite: ${memory(ours)}; of the reference: ${memory(reference)}. ` +
    `On disk: ${megabytes(ours.disk)} and ${megabytes(reference.disk)}.`
  );
}

/** What is better in a row, where it is not less time. */
function direction(unit: string): string {
  return unit.endsWith('/s') ? ' (higher is better)' : '';
}
