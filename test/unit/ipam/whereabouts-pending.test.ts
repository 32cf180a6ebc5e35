/** Releases that wait until the backend can be asked. */

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import type { Backend } from '../../../ipam/whereabouts/backend.ts';
import { PendingReleases, workOff } from '../../../ipam/whereabouts/pending.ts';

test('what an operator should know of a release is told also when it had to wait', async (t) => {
  const root = mkdtempSync(join(tmpdir(), 'cni-pending-'));
  t.teardown(() => rmSync(root, { recursive: true, force: true }));
  const directory = join(root, 'net');
  const pending = new PendingReleases(directory);
  for (const containerId of ['one', 'two'])
    pending.remember({
      owner: { node: 'n', network: 'net', containerId, ifname: 'eth0' },
      ...{ guess: undefined, quarantine: 600, lists: [], cluster: 'c' },
    });
  const backend = {
    ...{ directory, cluster: 'c', isFinal: () => false },
    release: async (...[{ owner }, warn]: Parameters<Backend['release']>) =>
      warn?.(`no room for ${owner.containerId}`),
  } as unknown as Backend;
  const told: string[] = [];
  await workOff(backend, (message) => void told.push(message));
  t.deepEqual(told.sort(), ['no room for one', 'no room for two']);
  t.deepEqual([...pending.steps(async () => true)], []);
});
