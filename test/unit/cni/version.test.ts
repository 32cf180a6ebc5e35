import test from 'ava';
import { atLeast, compareVersions } from '../../../lib/cni/version.ts';

test('versions are compared by number, and missing parts count as zero', (t) => {
  for (const [a, b, order] of [
    ['1.1.0', '1.0.0', 1],
    ['0.10.0', '0.9.0', 1],
    ['0.3.1', '0.3.0', 1],
    ['0.3', '0.3.0', 0],
    ['1', '1.0.0', 0],
    ['1', '0.9.9', 1],
    ['', '0.1.0', 0],
  ] as const) {
    t.is(Math.sign(compareVersions(a, b)), order, `${a} and ${b}`);
    t.is(Math.sign(compareVersions(b, a)), order === 0 ? 0 : -order, `${b} and ${a}`);
    t.true(atLeast(a, b));
    t.is(atLeast(b, a), order === 0);
  }
  for (const text of ['v1', '1.0.0.0', '1.x', '1.', '-1', '1234567890'])
    t.throws(() => compareVersions(text, '1.0.0'), { message: /must be a version such as/ }, text);
});
