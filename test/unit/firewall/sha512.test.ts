import { createHash } from 'node:crypto';
import test from 'ava';
import { sha512 } from '../../../lib/firewall/sha512.ts';

test('hashes as node:crypto does, whatever the length', (t) => {
  for (const text of [
    '',
    'a',
    'ä€𝄞',
    ...Array.from({ length: 140 }, (_, i) => 'x'.repeat(i + 1)),
    'y'.repeat(100_000),
  ])
    t.is(sha512(text), createHash('sha512').update(text).digest('hex'));
});
