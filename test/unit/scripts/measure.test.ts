import test from 'ava';
import { summarize } from '../../../scripts/bench/measure.ts';
import { formatRow, forReadme } from '../../../scripts/bench/report.ts';

test('a ratio below 1 means that this suite is ahead, of times as of rates', (t) => {
  const times = summarize('life', 'ms', { agent: [10, 10], alone: [30, 30], reference: [20, 20] });
  t.is(times.ratios.agent?.value, 0.5);
  t.is(times.ratios.alone?.value, 1.5);
  const rates = summarize('crowd', 'pods/s', { agent: [40, 40], alone: [10, 10], reference: [20, 20] });
  t.is(rates.ratios.agent?.value, 0.5);
  t.is(rates.ratios.alone?.value, 2);
});

test('the interval holds the ratio and is as wide as the samples vary', (t) => {
  const { ratios } = summarize('life', 'ms', {
    agent: [8, 9, 10, 10, 11, 12],
    alone: [20, 20, 20, 20, 20, 20],
    reference: [20, 20, 20, 20, 20, 20],
  });
  const { low, high } = ratios.agent!.interval!;
  t.true(low >= 0.4 && low < 0.5);
  t.true(high <= 0.6 && high > 0.5);
  t.deepEqual(ratios.alone?.interval, { low: 1, high: 1 });
});

test('few samples have no interval, and what was not measured no ratio', (t) => {
  const single = summarize('GC', 'ms', { agent: [1], alone: [], reference: [4] });
  t.deepEqual(single.ratios, { agent: { value: 0.25 } });
  const five = [1, 2, 3, 4, 5];
  const few = summarize('GC', 'ms', { agent: five, alone: [], reference: five });
  t.deepEqual(few.ratios, { agent: { value: 1 } });
  t.regex(formatRow(single), /^GC +1\.0 ms ± 0\.0 +– +4\.0 ms ± 0\.0 +0\.25$/);
  t.deepEqual(summarize('life, nftables', 'ms', { agent: [1], alone: [2], reference: [] }).ratios, {});
});

test('the README has whole lives, and no single plugins', (t) => {
  const isIn = (name: string) => forReadme(summarize(name, 'ms', { agent: [1], alone: [1], reference: [1] }));
  t.true(isIn('life, 0 pods present: whole life'));
  t.true(isIn('busy host, 64 at once: pods added and deleted'));
  t.false(isIn('life, 0 pods present: bridge ADD'));
  t.false(isIn('plugin portmap: ADD'));
});
