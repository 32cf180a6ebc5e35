import { spawnSync } from 'node:child_process';
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
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

test('nothing in the environment or the arguments changes a plugin but what the specification names', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'cni-environment-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  writeFileSync(join(directory, 'file.env'), 'CNI_COMMAND=ADD\n');
  const plain = await tryRun([join(suites.ours, 'bridge')], { env: { CNI_COMMAND: 'VERSION' } });
  const hostile = await tryRun(
    [join(suites.ours, 'bridge'), `--env-file=${directory}/file.env`, '--inspect'],
    {
      env: {
        CNI_COMMAND: 'VERSION',
        NODE_OPTIONS: '--inspect',
        NODE_V8_COVERAGE: join(directory, 'coverage'),
        NODE_COMPILE_CACHE: join(directory, 'cache'),
        NODE_REPL_EXTERNAL_MODULE: join(directory, 'module'),
        NODE_CHANNEL_FD: 'abc',
        LD_PRELOAD: join(directory, 'preload.so'),
        LD_LIBRARY_PATH: directory,
        OPENSSL_CONF: join(directory, 'openssl.cnf'),
      },
    },
  );
  const { argv: _, ...expected } = plain;
  t.like(hostile, expected);
  t.deepEqual(readdirSync(directory), ['file.env']);
});
