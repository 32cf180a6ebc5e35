import { readdirSync, readFileSync } from 'node:fs';
import test from 'ava';
import { alone } from '../../../lib/group-commit.ts';
import { Programs } from '../../../lib/kernel/programs.ts';

const descriptors = () => readdirSync('/proc/self/fd').length;

test('a child that cannot be waited for as it should is waited for all the same', async (t) => {
  const failing = [
    () => {
      throw new Error('at once');
    },
    () => Promise.reject(new Error('later')),
  ];
  for (const waitForEnd of failing) {
    const programs = new Programs({}, { waitForEnd, together: alone });
    const before = descriptors();
    const { status, stdout } = await programs.run('sh', ['-c', 'sleep 0.1; echo done; exit 3']);
    t.deepEqual([status, stdout], [3, 'done\n']);
    t.is(descriptors(), before);
    t.is(readFileSync(`/proc/self/task/${process.pid}/children`, 'utf8'), '', 'no zombie is left');
  }
});
