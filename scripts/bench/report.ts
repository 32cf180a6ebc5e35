/** The report of the bench: rows for the terminal and for Markdown. */

import { type Contender, contenders } from './call.ts';
import type { Footprint } from './footprint.ts';
import { isRate, ours, type Ratio, type Row } from './measure.ts';

/** Everything that one run of the bench measured. */
export interface Report {
  machine: string;
  date: string;
  footprint: Footprint;
  rows: Row[];
}

/** What the contenders are called in tables. */
const labels: Readonly<Record<Contender, string>> = {
  agent: 'with the agent',
  alone: 'without',
  reference: 'reference',
};

/** Which rows of bench/results.md are also in the README. */
const essential = [
  /^VERSION$/,
  /^life, .*: whole life$/,
  /^life, .* present: chain ADD$/,
  /^chain of six: whole life$/,
  /^processor time/,
  /at once: (pods added and deleted|ADD, the slowest)$/,
  /^GC /,
  /^host-local, (10|60,000) reserved: ADD$/,
  /^data path: pod to pod$/,
  /^memory/,
];

/** Whether the README has a row. */
export function forReadme({ name }: Row): boolean {
  return essential.some((pattern) => pattern.test(name));
}

/** The heading for the lines of {@link formatRow}. */
export function formatHeader(): string {
  return [
    'scenario'.padEnd(56),
    ...contenders.map((contender) => labels[contender].padStart(20)),
    '  with the agent/reference',
    'without/reference (95 % between)',
  ].join(' ');
}

/** A line for the terminal. */
export function formatRow({ name, unit, figures, ratios }: Row): string {
  const figure = (contender: Contender) => {
    const one = figures[contender];
    const text = one ? `${one.median.toFixed(1)} ${unit} ±${one.spread.toFixed(1).padStart(4)}` : '–';
    return text.padStart(20);
  };
  return [
    (name + direction(unit)).padEnd(56),
    ...contenders.map(figure),
    `  ${describeRatio(ratios.agent).padEnd(24)}`,
    describeRatio(ratios.alone),
  ]
    .join(' ')
    .trimEnd();
}

/** The table, with explanations. */
export function markdown({ machine: where, date, footprint }: Report, rows: readonly Row[]): string {
  const lines = rows.map(({ name, unit, figures, ratios }) => {
    const cells = contenders.map((contender) => {
      const one = figures[contender];
      return one ? `${one.median.toFixed(1)} ${unit}` : '–';
    });
    const compared = ours.map((contender) => describeRatio(ratios[contender]).replace(/^\S+/, '**$&**'));
    return `| ${[name + direction(unit), ...cells, ...compared].join(' | ')} |`;
  });
  return [
    `Measured ${date} on ${where}. Medians, and their ratios to the reference's, with the 95 % interval where there are six samples or more. **A ratio below 1 means that this suite ` +
      'is ahead**: it is of times, and inverted for throughput. Processor time is that of the calls, of all that they start and of the agent, ' +
      'without what threads of the kernel do later. On the busy host, one process for each processor spins beside the pods. The reference collects no chains of iptables, so that GC of it is DEL of ' +
      'each, extrapolated from five.',
    '',
    `| | ${contenders.map((contender) => labels[contender]).join(' | ')} | ratio with the agent | ratio without |`,
    `|---|${'---:|'.repeat(contenders.length + 2)}`,
    ...lines,
    '',
    describeFootprint(footprint),
    '',
  ].join('\n');
}

function describeRatio(ratio: Ratio | undefined): string {
  if (!ratio) return '';
  const { value, interval } = ratio;
  return value.toFixed(2) + (interval ? ` (${interval.low.toFixed(2)}–${interval.high.toFixed(2)})` : '');
}

/** What the suites take, in a sentence each. */
export function describeFootprint({ launcher, alone, reference, disk }: Footprint): string {
  const [mebi, kibi] = [2 ** 20, 2 ** 10];
  const memory = ({ peak, own }: Footprint['alone']) =>
    `${(peak / mebi).toFixed(0)} MiB, most of it pages of files that all processes share (${(own / mebi).toFixed(0)} MiB are its own when it begins)`;
  return (
    `Peak memory of a verb without the agent: ${memory(alone)}; of the reference: ${memory(reference)}. ` +
    `With the agent, it is that of the launcher, a file of ${(launcher.size / kibi).toFixed(0)} KiB: ${(launcher.peak / kibi).toFixed(0)} KiB. ` +
    `On disk: ${(disk.ours / 1e6).toFixed(0)} MB and ${(disk.reference / 1e6).toFixed(0)} MB.`
  );
}

/** What is better in a row, unless lower is better. */
function direction(unit: string): string {
  return isRate(unit) ? ' (higher is better)' : '';
}
