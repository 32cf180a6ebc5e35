import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import test from 'ava';
import { lockNetworks, removeLeftLocks } from '../../../lib/networks/lock.ts';

test('one at a time changes the networks of a pod, each pod for itself, and nothing stays of the lock', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'networks-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  let [holders, most, done] = [0, 0, 0];
  const change = async () => {
    using _ = await lockNetworks('one', directory);
    most = Math.max(most, ++holders);
    // Another pod waits for nobody.
    if (done === 0) (await lockNetworks('two', directory))[Symbol.dispose]();
    await sleep(1);
    holders--;
    done++;
  };
  // Some arrive while others already wait for a lock that is about to be removed.
  const changes = async () => {
    for (let i = 0; i < 4; i++) await change();
  };
  await Promise.all(Array.from({ length: 5 }, changes));
  t.deepEqual([most, holders, done], [1, 0, 20]);
  t.deepEqual(readdirSync(directory), []);
});

test('what is left of locks whose holders were killed is removed, but not what is held', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'networks-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  writeFileSync(join(directory, 'left'), '');
  mkdirSync(join(directory, 'directory'));
  const held = await lockNetworks('held', directory);
  const told: string[] = [];
  const warn = (message: string) => void told.push(message);
  removeLeftLocks(warn, directory);
  t.deepEqual(readdirSync(directory).sort(), ['directory', 'held']);
  t.regex(told.join(), /^[^,]*directory"/);
  held[Symbol.dispose]();
  removeLeftLocks(warn, join(directory, 'none'));
  t.is(told.length, 1, 'what is in the way hinders nobody');
});

test('a lock whose file cannot be removed ends all the same', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'networks-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const lock = await lockNetworks('one', directory);
  rmSync(join(directory, 'one'));
  mkdirSync(join(directory, 'one'));
  t.notThrows(() => lock[Symbol.dispose]());
});
