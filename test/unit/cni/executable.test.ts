import { spawnSync } from 'node:child_process';
import { join } from 'node:path';
import test from 'ava';
import { pluginNames, suites } from '../../support/plugin.ts';
import { tryRun } from '../../support/run.ts';

test('every name runs the bytecode that was built in for it', async (t) => {
  const names = pluginNames(suites.ours);
  t.true(names.includes('bridge') && names.includes('cni'));
  for (const name of names) {
    const argv = [join(suites.ours, name), ...(name === 'cni' ? ['--version'] : [])];
    const { exit, stdout, stderr } = await tryRun(argv, { env: { CNI_COMMAND: 'VERSION', CNI_DEBUG: '1' } });
    t.deepEqual({ name, exit, stderr }, { name, exit: 0, stderr: '' });
    t.regex(stdout, name === 'cni' ? /^cni-plugins-ts \d/ : /^\{"cniVersion":/);
  }
});

test('an unknown name is told which ones there are', (t) => {
  const { status, stdout, stderr } = spawnSync(join(suites.ours, 'bridge'), {
    argv0: 'nonsuch',
    encoding: 'utf8',
  });
  t.is(status, 1);
  t.is(stdout, '');
  t.regex(stderr, /holds no plugin called "nonsuch".*bridge.*or cni/);
});
