/** How host-local tells that somebody else has changed its reservations. */

import { mkdtempSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { answerOf, environmentOf, plugins } from './calls.ts';
import { place } from './target.ts';

const hostLocal = plugins.find(({ name }) => name === 'host-local')!;

test.beforeEach((t) => {
  t.context = mkdtempSync(join(tmpdir(), 'cni-index-'));
});
test.afterEach.always((t) => rmSync(t.context as string, { recursive: true, force: true }));

/** @returns the directory of reservations, and a call of host-local. */
function networkIn(dataDir: string): [string, (verb: string) => Promise<unknown>] {
  const ipam = { type: 'host-local', dataDir, ranges: [[{ subnet: '10.1.0.0/29' }]] };
  const config = JSON.stringify({ cniVersion: '1.1.0', name: 'n', type: 'x', ipam });
  return [join(dataDir, 'n'), (verb) => answerOf(hostLocal, config, environmentOf(verb))];
}

test('the time of the index is one that no change by somebody else can bear', async (t) => {
  const [directory, call] = networkIn(t.context as string);
  await call('ADD');
  // The kernel's clock moves in ticks of up to 10 ms.
  t.true(statSync(directory).mtimeMs <= Date.now() - 1000);
});

test('DEL removes what somebody else has reserved for the container meanwhile', async (t) => {
  const [directory, call] = networkIn(t.context as string);
  await call('ADD');
  place(join(directory, '10.1.0.5'), 'c1\r\neth0');
  await call('DEL');
  t.is(statSync(join(directory, '10.1.0.5'), { throwIfNoEntry: false }), undefined);
});
