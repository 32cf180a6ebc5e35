import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { CniError } from '../../../lib/errors.ts';
import { DelegateCache } from '../../../lib/networks/delegate-cache.ts';
import { cachedResults } from '../../../lib/result-cache.ts';
import { failing } from '../../support/failing-file-calls.ts';

test.serial('results that cannot be listed are not taken for none', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'delegates-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const cache = new DelegateCache(directory);
  t.notThrows(() => cache.collect(() => false), 'nothing was ever cached');
  mkdirSync(join(directory, 'results'));
  const full = { instanceOf: CniError, code: 5 };
  await failing('readdirSync', 'EMFILE', () => {
    t.throws(() => cache.collect(() => false), {
      ...full,
      message: `Cannot list "${directory}/results". The process has too many open files. Raise its limit`,
    });
    t.throws(() => [...cachedResults()], {
      ...full,
      message: 'Cannot list "/var/lib/cni/results". The process has too many open files. Raise its limit',
    });
  });
});

test('no result of a plugin is below a link, so that one in place of the directory is passed over', (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'delegates-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  symlinkSync(tmpdir(), join(directory, 'results'));
  t.notThrows(() => new DelegateCache(directory).collect(() => false));
});
