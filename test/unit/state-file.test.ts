import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import { run } from '../support/run.ts';

test('a file is written and renamed without waiting for the disk', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'state-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  const [file, trace] = [join(directory, 'new/file'), join(directory, 'trace')];
  const script = `
    import { writeStateFile } from ${JSON.stringify(join(import.meta.dirname, '../../lib/state-file.ts'))};
    writeStateFile(${JSON.stringify(file)}, 'text');`;
  const calls = 'trace=rename,fsync,fdatasync,sync_file_range,syncfs,sync,msync';
  const strace = ['strace', '-f', '-qq', '-o', trace, '-e', calls, '-e', 'signal=none'];
  await run([...strace, process.execPath, '--no-warnings', '--input-type=module', '-e', script]);
  t.is(readFileSync(file, 'utf8'), 'text');
  const names = [...readFileSync(trace, 'utf8').matchAll(/^\d+ +(\w+)\(/gm)].map(([, name]) => name);
  t.deepEqual(names, ['rename']);
});
