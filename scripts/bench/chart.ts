/**
 * A picture of the ratios that matter most, on a logarithmic axis: where bars go left from 1, this suite is
 * ahead.
 */

import { textWidth } from '../../cli/draw/text-size.ts';
import { escapeXml } from '../../cli/draw/xml.ts';
import { ours, type Ratio, type Row } from './measure.ts';

/** What is drawn, by heading: names of rows, and their labels here. */
const groups: Readonly<Record<string, Readonly<Record<string, string>>>> = {
  "A pod's life: ADD and DEL": {
    'life, 0 pods present: whole life': 'empty host',
    'life, 200 pods present: whole life': '200 other pods',
    'life, 1,000 pods present: whole life': '1,000 other pods',
    'chain of six: whole life': 'chain of six plugins',
    'life, iptables-legacy: whole life': 'iptables-legacy',
    'processor time: whole life': 'processor time, empty host',
  },
  'Many at once': {
    '64 at once: pods added and deleted': '64 pods at once',
    'busy host, 64 at once: pods added and deleted': '64 pods at once, busy host',
    'GC of 200, half stale': 'GC of 200, half of them stale',
  },
  'Single calls': {
    VERSION: 'VERSION',
    'host-local, 10 reserved: ADD': 'host-local ADD, 10 reserved',
    'host-local, 60,000 reserved: ADD': 'host-local ADD, 60,000 reserved',
  },
  Throughput: {
    'data path: pod to pod': 'pod to pod',
    'data path: outside to a host port': 'outside to a host port',
  },
};

const labels = { agent: 'with the agent', alone: 'without' } as const;
const ticks = [0.001, 0.003, 0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100];
const [width, left, right, top] = [920, 270, 70, 108];
const [barHeight, rowGap, headingHeight] = [13, 8, 30];

const style = `
svg { --paper: #ffffff; --ink: #1b1f24; --dim: #4d5661; --grid: #d5dae0; --agent: #00694d; --alone: #3f74b5; --level: #8a939d; font-family: sans-serif; }
@media (prefers-color-scheme: dark) { svg { --paper: #14181d; --ink: #f0f3f6; --dim: #b4bdc7; --grid: #343c45; --agent: #35c79b; --alone: #6cb8f0; --level: #7d8792; } }
.paper { fill: var(--paper); } text { fill: var(--ink); font-size: 12px; } .title { font-size: 16px; font-weight: bold; }
.heading { font-weight: bold; font-size: 13px; } .dim { fill: var(--dim); }
.grid { stroke: var(--grid); } .one { stroke: var(--ink); stroke-width: 1.5; } .interval { stroke: var(--ink); stroke-width: 1.5; }
.agent { fill: var(--agent); } .alone { fill: var(--alone); } .agent.level, .alone.level { fill: var(--level); }
.unknown { fill-opacity: 0.35; }
.agent.unknown { stroke: var(--agent); } .alone.unknown { stroke: var(--alone); }
`;

/** Draws the chart. Rows that were not compared are left out. @returns SVG. */
export function drawChart(rows: readonly Row[]): string {
  const shown = Object.entries(groups).flatMap(([heading, names]) => {
    const compared = rows.filter(({ name, ratios }) => names[name] && Object.keys(ratios).length > 0);
    return compared.length > 0
      ? [{ heading, rows: compared.map((row) => ({ row, label: names[row.name]! })) }]
      : [];
  });
  const values = shown.flatMap(({ rows }) =>
    rows.flatMap(({ row }) => Object.values(row.ratios).flatMap(boundsOf)),
  );
  const axis = logAxis(values);
  const parts: string[] = [];
  let y = top;
  for (const group of shown) {
    parts.push(text(16, y + 14, group.heading, 'heading'));
    y += headingHeight;
    for (const { row, label } of group.rows) {
      parts.push(text(left - 12, y + barHeight + 4, label, '', 'end'));
      ours.forEach((contender, i) => {
        const ratio = row.ratios[contender];
        if (ratio) parts.push(barOf(ratio, contender, y + i * barHeight, axis));
      });
      y += ours.length * barHeight + rowGap;
    }
  }
  const lines = axis.ticks.map(
    (tick) =>
      `<line class="${tick === 1 ? 'one' : 'grid'}" x1="${axis.x(tick)}" x2="${axis.x(tick)}" y1="${top - 8}" y2="${y}"/>${text(axis.x(tick), top - 14, `${tick}`, 'dim', 'middle')}`,
  );
  const height = y + 16;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${width} ${height}" width="${width}" height="${height}" role="img">
<title>Ratios to the reference plugins</title>
<style>${style}</style>
<rect class="paper" width="${width}" height="${height}"/>
${text(16, 26, 'Ratio to the reference plugins: below 1, this suite is ahead', 'title')}
${text(16, 46, 'Times; throughput inverted. Logarithmic axis. The thin line is the 95 % interval.', 'dim')}
${legendOf(parts.join(''))}
${lines.join('\n')}
${parts.join('\n')}
</svg>
`;
}

interface Axis {
  readonly ticks: readonly number[];
  /** Where a ratio is, in pixels. */
  x(ratio: number): number;
}

/** An axis from the tick below all values to the one above. */
function logAxis(values: readonly number[]): Axis {
  const positive = values.filter((value) => value > 0);
  const lowest = Math.max(ticks[0]!, Math.min(1, ...positive));
  const highest = Math.min(ticks.at(-1)!, Math.max(1, ...positive));
  const first = ticks.findLastIndex((tick) => tick <= lowest);
  const last = ticks.findIndex((tick) => tick >= highest);
  const [low, high] = [Math.log(ticks[first]!), Math.log(ticks[last]!)];
  return {
    ticks: ticks.slice(first, last + 1),
    x: (ratio) => {
      const part = (Math.log(Math.max(ratio, ticks[first]!)) - low) / (high - low || 1);
      return Math.round((left + Math.min(part, 1) * (width - left - right)) * 10) / 10;
    },
  };
}

function boundsOf({ value, interval }: Ratio): number[] {
  return interval ? [interval.low, value, interval.high] : [value];
}

/** A bar from 1 to the ratio: grey where the interval includes 1, pale where there is no interval. */
function barOf(ratio: Ratio, contender: (typeof ours)[number], y: number, { x }: Axis): string {
  const { value, interval } = ratio;
  const isLevel = interval && interval.low <= 1 && interval.high >= 1;
  const kind = isLevel ? ' level' : interval ? '' : ' unknown';
  const [from, to] = [Math.min(x(value), x(1)), Math.max(x(value), x(1))];
  const middle = y + barHeight / 2;
  // Beyond the bar and its interval, on the side that leads away from 1.
  const [lowEnd, highEnd] = [Math.min(...boundsOf(ratio).map(x)), Math.max(...boundsOf(ratio).map(x))];
  const isAhead = value < 1;
  return [
    `<rect class="${contender}${kind}" x="${from}" y="${y + 1}" width="${Math.max(1, Math.round((to - from) * 10) / 10)}" height="${barHeight - 2}"/>`,
    interval
      ? `<line class="interval" x1="${x(interval.low)}" x2="${x(interval.high)}" y1="${middle}" y2="${middle}"/>`
      : '',
    text(isAhead ? lowEnd - 5 : highEnd + 5, y + 11, format(value), 'dim', isAhead ? 'end' : 'start'),
  ].join('');
}

function format(ratio: number): string {
  return ratio < 0.095 ? ratio.toPrecision(1) : ratio.toFixed(2);
}

/** What the bars in the chart are. */
function legendOf(bars: string): string {
  let x = 16;
  return [
    ...ours.map((contender) => [contender, labels[contender]] as const),
    ['agent level', 'grey: the interval has 1 in it'] as const,
    ['agent unknown', 'pale: too few samples for an interval'] as const,
  ]
    .filter(([classes]) => bars.includes(classes.replace('agent ', '')))
    .map(([classes, meaning]) => {
      const entry = `<rect class="${classes}" x="${x}" y="58" width="14" height="12"/>${text(x + 20, 68, meaning)}`;
      x += 20 + textWidth(meaning, 12) + 18;
      return entry;
    })
    .join('\n');
}

function text(x: number, y: number, content: string, classes = '', anchor = 'start'): string {
  return `<text x="${Math.round(x * 10) / 10}" y="${y}" class="${classes}" text-anchor="${anchor}">${escapeXml(content)}</text>`;
}
