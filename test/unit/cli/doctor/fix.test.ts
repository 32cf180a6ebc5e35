import test from 'ava';
import type { Finding } from '../../../../cli/doctor/check.ts';
import { fixAll } from '../../../../cli/doctor/fix.ts';

const finding = (subject: string, apply?: () => void): Finding => ({
  ...{ severity: 'error', subject, message: 'm', cause: 'c', fix: 'true' },
  ...(apply && { apply }),
});
const check = (...findings: Finding[]) => [{ id: 'c', title: 'C', findings, seen: '' }];

test('only what a second look no longer finds counts as fixed', async (t) => {
  let applied = 0;
  const apply = () => void applied++;
  const refuse = () => {
    throw new Error('refused');
  };
  const first = check(
    finding('gone', apply),
    finding('stays', apply),
    finding('fails', refuse),
    finding('by hand'),
  );
  const second = check(finding('stays', apply), finding('fails', refuse), finding('by hand'));
  const { fixes, results } = await fixAll(first, async () => second);
  t.is(applied, 2);
  t.deepEqual(
    fixes.map((one) => [one.finding.subject, one.failure]),
    [
      ['gone', undefined],
      ['stays', 'a second look still finds it'],
      ['fails', 'refused'],
    ],
  );
  t.is(results, second);
});

test('a check that can no longer be done fixes nothing', async (t) => {
  const { fixes } = await fixAll(check(finding('x', () => {})), async () => check(finding('C')));
  t.deepEqual(
    fixes.map(({ failure }) => failure),
    ['a second look still finds it'],
  );
});

test('with nothing to fix there is no second look', async (t) => {
  const first = check(finding('x'));
  const { results } = await fixAll(first, () => Promise.reject(new Error('looked')));
  t.is(results, first);
});

test('findings with the same subject are told apart by their keys', async (t) => {
  const keyed = (key: string): Finding => ({ ...finding('web', () => {}), key });
  const { fixes } = await fixAll(check(keyed('one'), keyed('other')), async () => check(keyed('other')));
  t.deepEqual(
    fixes.map(({ failure }) => failure),
    [undefined, 'a second look still finds it'],
  );
});
