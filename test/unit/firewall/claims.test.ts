import fs, { mkdtempSync, rmSync } from 'node:fs';
import { syncBuiltinESMExports } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { Claims } from '../../../lib/firewall/claims.ts';

test.serial(
  'claims that cannot be listed for want of memory or descriptors are not taken for none',
  async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'claims-'));
    const { readdirSync } = fs;
    t.teardown(() => {
      fs.readdirSync = readdirSync;
      syncBuiltinESMExports();
      rmSync(directory, { recursive: true });
      rmSync(`${directory}.lock`, { force: true });
    });
    const claims = new Claims(() => {}, directory);
    const attachment = { network: 'net', containerId: 'one', ifname: 'eth0' };
    for (const code of ['EMFILE', 'ENOMEM']) {
      fs.readdirSync = (() => {
        throw Object.assign(new Error(code), { code });
      }) as unknown as typeof fs.readdirSync;
      syncBuiltinESMExports();
      t.throws(() => claims.of(attachment), { message: /Cannot list/ });
      await t.throwsAsync(claims.take(attachment, [], { backends: [] }), { message: /Cannot list/ });
    }
    fs.readdirSync = readdirSync;
    syncBuiltinESMExports();
    // The lock was let go of, or this would wait for it.
    await claims.take(attachment, [], { backends: [] });
    t.deepEqual(claims.of(attachment), []);
  },
);
