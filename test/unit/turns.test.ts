import test from 'ava';
import { Turns } from '../../lib/turns.ts';

test('work of one owner is done in turn, whatever becomes of what came before; that of others is not', async (t) => {
  const turns = new Turns();
  const log: string[] = [];
  let fail = () => {};
  const first = turns.take('a', async () => {
    log.push('first begins');
    await new Promise<void>((_, reject) => {
      fail = () => reject(new Error('first failed'));
    });
  });
  const second = turns.take('a', () => log.push('second'));
  await turns.take('b', () => log.push('other owner'));
  t.deepEqual(log, ['first begins', 'other owner']);
  fail();
  await t.throwsAsync(first, { message: 'first failed' });
  t.is(await second, 3);
  t.deepEqual(log, ['first begins', 'other owner', 'second']);
  await turns.take('a', () => log.push('third'));
  t.is(log.at(-1), 'third');
});
