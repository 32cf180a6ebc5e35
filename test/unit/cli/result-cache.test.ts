import fs from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { listCache, removeCached, writeCached } from '../../../cli/libcni/cache.ts';

test('an attachment is forgotten without a look at all others', (t) => {
  const cacheDir = fs.mkdtempSync(join(tmpdir(), 'cni-cache-'));
  t.teardown(() => fs.rmSync(cacheDir, { recursive: true }));
  const attachmentOf = (containerId: string) => ({
    ...{ network: 'net', containerId, ifname: 'eth0', netns: '/run/netns/pod', result: undefined },
    ...{ config: Buffer.from('{}'), args: [], capabilityArgs: {} },
  });
  for (const containerId of ['one', 'two', 'three']) writeCached(cacheDir, attachmentOf(containerId));

  const { readdirSync } = fs;
  const listed: unknown[] = [];
  t.teardown(() => {
    fs.readdirSync = readdirSync;
    syncBuiltinESMExports();
  });
  fs.readdirSync = ((...args: Parameters<typeof readdirSync>) => {
    listed.push(args[0]);
    return readdirSync(...args);
  }) as typeof readdirSync;
  syncBuiltinESMExports();
  removeCached(cacheDir, attachmentOf('two'));
  t.deepEqual(listed, []);
  const left = listCache(cacheDir).map(({ attachment }) => attachment?.containerId);
  t.deepEqual(left, ['one', 'three']);
  t.is(listed.length, 1, 'lists are noticed');
});
