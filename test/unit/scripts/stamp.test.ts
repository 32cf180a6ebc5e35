import test from 'ava';
import { isCurrent, stampOf } from '../../../scripts/build/stamp.ts';

test('a trained executable is current as long as it is made of the same parts', (t) => {
  t.true(isCurrent(stampOf('a', true), 'a', true));
  t.true(isCurrent(stampOf('a', true), 'a', false));
  t.false(isCurrent(stampOf('a', true), 'b', true));
  t.false(isCurrent('', 'a', false));
});

test('an executable whose training failed or was skipped is built again when it can be trained', (t) => {
  t.false(isCurrent(stampOf('a', false), 'a', true));
  t.true(isCurrent(stampOf('a', false), 'a', false), 'where it cannot, nothing would change');
  t.false(isCurrent(stampOf('a', false), 'b', false));
});
