import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { promisify } from 'node:util';
import test from 'ava';

const root = join(import.meta.dirname, '../../..');

/** Listens in a process that has no descriptor left. */
const script = `
  import { openSync } from 'node:fs';
  import { onFirewalldReload } from '${root}/lib/firewall/firewalld-reload.ts';
  const programs = { find: () => '/bin/cat' };
  try {
    for (;;) openSync('/dev/null');
  } catch {}
  const listening = onFirewalldReload(programs, () => {}, (why) => {
    console.log(why);
    listening[Symbol.dispose]();
  });
`;

test('without a descriptor left, the loss is told, and nothing is thrown', async (t) => {
  const node = [process.execPath, '--no-warnings', '--input-type=module', '-e', script];
  const limited = ['-c', 'ulimit -n 64; exec "$@"', 'sh', ...node];
  const { stdout } = await promisify(execFile)('sh', limited);
  t.regex(stdout, /^The system bus is out of reach/);
});
