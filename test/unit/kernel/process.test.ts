import { readFileSync, writeFileSync } from 'node:fs';
import test from 'ava';
import { processStat } from '../../../lib/kernel/process.ts';

test('the fields of a process are found whatever its name', (t) => {
  const comm = '/proc/self/comm';
  const name = readFileSync(comm);
  writeFileSync(comm, 'a) Z 1 (b) X');
  try {
    const [state, parent] = processStat(process.pid);
    t.regex(state!, /^[RSD]$/);
    t.is(parent, `${process.ppid}`);
    t.is(processStat('self')[1], parent);
  } finally {
    writeFileSync(comm, name);
  }
});

test('a process that does not exist has no fields', (t) => {
  t.deepEqual(processStat(999_999_999), []);
});
