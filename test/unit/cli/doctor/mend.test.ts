import test from 'ava';
import type { Finding } from '../../../../cli/doctor/check.ts';
import { mend } from '../../../../cli/doctor/mend.ts';

const finding = (subject: string, fix?: () => void): Finding => ({
  ...{ severity: 'error', subject, message: 'm', cause: 'c', mend: 'true' },
  ...(fix && { fix }),
});
const check = (...findings: Finding[]) => [{ id: 'c', title: 'C', findings, seen: '' }];

test('only what a second look no longer finds counts as mended', async (t) => {
  let fixed = 0;
  const fix = () => void fixed++;
  const refuse = () => {
    throw new Error('refused');
  };
  const first = check(
    finding('gone', fix),
    finding('stays', fix),
    finding('fails', refuse),
    finding('by hand'),
  );
  const second = check(finding('stays', fix), finding('fails', refuse), finding('by hand'));
  const { mendings, results } = await mend(first, async () => second);
  t.is(fixed, 2);
  t.deepEqual(
    mendings.map((one) => [one.finding.subject, one.failure]),
    [
      ['gone', undefined],
      ['stays', 'a second look still finds it'],
      ['fails', 'refused'],
    ],
  );
  t.is(results, second);
});

test('a check that can no longer be done mends nothing', async (t) => {
  const { mendings } = await mend(check(finding('x', () => {})), async () => check(finding('C')));
  t.deepEqual(
    mendings.map(({ failure }) => failure),
    ['a second look still finds it'],
  );
});

test('with nothing to mend there is no second look', async (t) => {
  const first = check(finding('x'));
  const { results } = await mend(first, () => Promise.reject(new Error('looked')));
  t.is(results, first);
});

test('findings with the same subject are told apart by their keys', async (t) => {
  const keyed = (key: string): Finding => ({ ...finding('web', () => {}), key });
  const { mendings } = await mend(check(keyed('one'), keyed('other')), async () => check(keyed('other')));
  t.deepEqual(
    mendings.map(({ failure }) => failure),
    [undefined, 'a second look still finds it'],
  );
});
