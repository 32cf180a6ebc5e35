import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import test from 'ava';
import { drawChart } from '../../../scripts/bench/chart.ts';
import type { Ratio, Row } from '../../../scripts/bench/measure.ts';

const bench = join(import.meta.dirname, '../../../bench');
const row = (name: string, agent: Ratio): Row => ({ name, unit: 'ms', figures: {}, ratios: { agent } });
/** Class, left side and width of the bars. */
const barsOf = (svg: string) =>
  [...svg.matchAll(/<rect class="(agent[^"]*)" x="([\d.]+)" y="\d+" width="([\d.]+)" height="11"/g)].map(
    ([, kind, x, width]) => ({ kind, x: Number(x), width: Number(width) }),
  );

test('the chart in bench/ is that of the recorded figures', (t) => {
  const { rows } = JSON.parse(readFileSync(join(bench, 'results.json'), 'utf8')) as { rows: Row[] };
  t.is(readFileSync(join(bench, 'results.svg'), 'utf8'), drawChart(rows));
});

test('bars begin at 1, equal factors are equally long, and grey means that the interval has 1 in it', (t) => {
  const bars = barsOf(
    drawChart([
      row('VERSION', { value: 0.1, interval: { low: 0.09, high: 0.11 } }),
      row('host-local, 10 reserved: ADD', { value: 10, interval: { low: 9, high: 11 } }),
      row('host-local, 60,000 reserved: ADD', { value: 0.9, interval: { low: 0.8, high: 1.1 } }),
      row('data path: pod to pod', { value: 0.01 }),
    ]),
  );
  t.deepEqual(
    bars.map(({ kind }) => kind),
    ['agent', 'agent', 'agent level', 'agent unknown'],
  );
  const [ahead, behind, level, far] = bars as [(typeof bars)[0], ...typeof bars];
  const one = behind!.x;
  for (const bar of [ahead, level!, far!]) t.true(Math.abs(bar.x + bar.width - one) < 0.2);
  t.true(Math.abs(ahead.width - behind!.width) < 0.3);
  t.true(Math.abs(far!.width - 2 * ahead.width) < 0.3);
});
