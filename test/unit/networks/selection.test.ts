import test from 'ava';
import { parseSelections } from '../../../lib/networks/selection.ts';

test('a pod may have 64 networks, in either form', (t) => {
  const names = Array.from({ length: 65 }, (_, i) => `net-${i}`);
  for (const text of [
    (some: readonly string[]) => some.join(),
    (some: readonly string[]) => JSON.stringify(some.map((name) => ({ name }))),
  ]) {
    t.is(parseSelections(text(names.slice(1)), 'It').length, 64);
    t.throws(() => parseSelections(text(names), 'It'), {
      message: /names 65 networks, and a pod may have 64/,
    });
  }
});

test('the interface may have the name that Multus gave the key before', (t) => {
  const ifnames = (element: object) =>
    parseSelections(JSON.stringify([{ name: 'storage', ...element }]), 'It').map(({ ifname }) => ifname);
  t.deepEqual(ifnames({ interfaceRequest: 'st0' }), ['st0']);
  t.deepEqual(ifnames({ interface: 'st1', interfaceRequest: 'st0' }), ['st1']);
  t.throws(() => ifnames({ interfaceRequest: 'a:b' }), { message: /interface "a:b"/ });
});
