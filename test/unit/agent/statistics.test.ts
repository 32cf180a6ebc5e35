import test from 'ava';
import { type FinishedCall, Statistics } from '../../../agent/statistics.ts';

test('calls are counted by plugin, verb and code', (t) => {
  const statistics = new Statistics();
  for (const [code, milliseconds] of [
    [0, 10],
    [0, 30],
    [7, 20],
    [undefined, 40],
  ] as const)
    statistics.add('bridge', 'ADD', code, milliseconds);
  statistics.add('bridge', 'DEL', 0, 5);
  t.deepEqual(statistics.report('b').calls, [
    {
      plugin: 'bridge',
      verb: 'ADD',
      calls: 4,
      failures: 2,
      codes: { 0: 2, 7: 1, unanswered: 1 },
      p50Ms: 30,
      p99Ms: 40,
    },
    { plugin: 'bridge', verb: 'DEL', calls: 1, failures: 0, codes: { 0: 1 }, p50Ms: 5, p99Ms: 5 },
  ]);
});

test('each verb of the specification is counted by its name', (t) => {
  const statistics = new Statistics();
  const verbs = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION'];
  for (const verb of verbs) statistics.add('bridge', verb, 0, 1);
  t.deepEqual(
    statistics
      .report('b')
      .calls.map(({ verb }) => verb)
      .toSorted(),
    verbs.toSorted(),
  );
});

test('whatever callers send, there are few kinds of calls', (t) => {
  const statistics = new Statistics();
  const told: FinishedCall[] = [];
  for (let i = 0; i < 1000; i++) told.push(statistics.add('bridge', `VERB${i}`, 1000 + i, 1));
  for (const command of ['', 'add', '__proto__']) told.push(statistics.add('bridge', command, Number.NaN, 1));
  const [one, ...others] = statistics.report('b').calls;
  t.deepEqual(others, []);
  t.like(one, { verb: 'other', calls: 1003, failures: 1003, codes: { other: 1003 } });
  t.is(told.length, 1003);
  t.deepEqual(new Set(told.map(({ verb, code }) => `${verb} ${code}`)), new Set(['other other']));
});
