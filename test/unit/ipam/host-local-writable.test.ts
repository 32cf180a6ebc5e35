import { constants, mkdtempSync, readdirSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { refuseUnwritable } from '../../../ipam/host-local/writable.ts';
import { failing } from '../../support/failing-file-calls.ts';

/** Whether a file without a name is asked for. */
function isUnnamed(_path: unknown, flags: unknown): boolean {
  return typeof flags === 'number' && (flags & constants.O_DIRECTORY) !== 0;
}

for (const [where, code] of [
  ['files have no name', 'EIO'],
  ['every file has a name, as on NFS', 'ENOTSUP'],
] as const)
  test.serial(`where ${where}, trying to write leaves nothing, whether it succeeds or not`, async (t) => {
    const directory = mkdtempSync(join(tmpdir(), 'writable-'));
    t.teardown(() => rmSync(directory, { recursive: true }));
    let names: string[] | undefined;
    const seeNames = () => {
      names = readdirSync(directory);
      return false;
    };
    const attempt = async () => {
      await failing('writeSync', 'EIO', () => refuseUnwritable(join(directory, 'below/it')), seeNames);
      t.deepEqual(names, [], 'nothing is there even while it is written to');
      await failing('writeSync', 'ENOSPC', () => {
        t.throws(() => refuseUnwritable(directory), { message: /The file system is full/ });
      });
    };
    const isRefused = code === 'ENOTSUP' ? isUnnamed : () => false;
    await failing('openSync', code, attempt, isRefused);
    t.deepEqual(readdirSync(directory), []);
  });
