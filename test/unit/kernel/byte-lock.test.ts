import { spawn } from 'node:child_process';
import { closeSync, mkdtempSync, openSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { byteOf, isByteLocked, lockedBytes, tryLockByte } from '../../../lib/kernel/byte-lock.ts';

/** A file, and a way to open it once more, as another process would. */
function shared(t: ExecutionContext) {
  const directory = mkdtempSync(join(tmpdir(), 'cni-byte-lock-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const file = join(directory, 'lock');
  return { file, open: () => openSync(file, 'a+') };
}

test('a byte has one owner, and a group tells which of its bytes have one', (t) => {
  const { file, open } = shared(t);
  const [mine, yours, looking] = [open(), open(), open()];
  const keys = Array.from({ length: 20 }, (_, i) => `key ${i}`);
  const bytes = keys.map((key) => byteOf('group', key));
  for (const byte of bytes) t.true(tryLockByte(mine, file, byte));
  for (const byte of bytes) t.false(tryLockByte(yours, file, byte));
  t.true(tryLockByte(yours, file, byteOf('group', 'another')));
  t.true(tryLockByte(yours, file, byteOf('other group', 'key 0')));
  const sorted = (list: readonly bigint[]) => list.toSorted((a, b) => (a < b ? -1 : 1));
  t.deepEqual(lockedBytes(looking, file, 'group'), sorted([...bytes, byteOf('group', 'another')]));
  t.deepEqual(lockedBytes(looking, file, 'other group'), [byteOf('other group', 'key 0')]);
  t.deepEqual(lockedBytes(looking, file, 'third group'), []);
  closeSync(mine);
  t.deepEqual(lockedBytes(looking, file, 'group'), [byteOf('group', 'another')]);
  t.true(isByteLocked(looking, file, byteOf('group', 'another')));
  t.false(isByteLocked(looking, file, bytes[0]!));
  for (const fd of [yours, looking]) closeSync(fd);
});

test('a child that inherits the descriptor holds the lock', async (t) => {
  const { file, open } = shared(t);
  const fd = open();
  const byte = byteOf('group', 'key');
  t.true(tryLockByte(fd, file, byte));
  const child = spawn('cat', { stdio: ['pipe', 'ignore', 'ignore', fd] });
  const ended = new Promise((resolve) => child.on('exit', resolve));
  closeSync(fd);
  const looking = open();
  t.deepEqual(lockedBytes(looking, file, 'group'), [byte]);
  child.stdin!.end();
  await ended;
  t.deepEqual(lockedBytes(looking, file, 'group'), []);
  closeSync(looking);
});
