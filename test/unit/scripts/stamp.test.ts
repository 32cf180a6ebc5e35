import test from 'ava';
import { isCurrent, stampOf } from '../../../scripts/build/stamp.ts';

test('a trained executable is current as long as it is made of the same parts', (t) => {
  t.true(isCurrent(stampOf('a', 'trained'), 'a', 'trained'));
  t.true(isCurrent(stampOf('a', 'trained'), 'a', 'untrained'));
  t.false(isCurrent(stampOf('a', 'trained'), 'b', 'trained'));
  t.false(isCurrent('', 'a', 'untrained'));
});

test('an executable whose training failed or was skipped is built again when it can be trained', (t) => {
  t.false(isCurrent(stampOf('a', 'untrained'), 'a', 'trained'));
  t.true(isCurrent(stampOf('a', 'untrained'), 'a', 'untrained'), 'where it cannot, nothing would change');
  t.false(isCurrent(stampOf('a', 'untrained'), 'b', 'untrained'));
});

test('a reproducible executable is made anew from one trained once, and serves where that is enough', (t) => {
  t.false(isCurrent(stampOf('a', 'trained'), 'a', 'reproducible'));
  t.true(isCurrent(stampOf('a', 'reproducible'), 'a', 'trained'));
  t.true(isCurrent(stampOf('a', 'reproducible'), 'a', 'reproducible'));
});
