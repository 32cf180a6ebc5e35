import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { pluginNames, suites } from '../support/plugin.ts';
import { run } from '../support/run.ts';

function scratch(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'cni-installing-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  return directory;
}

test('install puts each new executable in the place of the old one, which is never gone', async (t) => {
  const directory = scratch(t);
  const binDir = join(directory, 'bin');
  // Files of their own: renaming one link over another of the same file does nothing.
  mkdirSync(binDir);
  const names = pluginNames(suites.ours);
  for (const name of names) copyFileSync(join(suites.ours, name), join(binDir, name));
  const before = new Map(names.map((name) => [name, statSync(join(binDir, name)).ino]));
  const log = join(directory, 'calls');
  const calls = 'trace=unlink,unlinkat,rename,renameat,renameat2';
  await run([
    'strace',
    '-f',
    '-qq',
    '-e',
    calls,
    '-o',
    log,
    join(suites.ours, 'cni'),
    'install',
    '--bin-dir',
    binDir,
  ]);
  for (const name of names)
    t.not(statSync(join(binDir, name)).ino, before.get(name), `"${name}" is replaced`);
  const touching = readFileSync(log, 'utf8')
    .split('\n')
    .filter((line) => names.some((name) => line.includes(`"${binDir}/${name}"`)));
  t.is(touching.length, names.length, touching.join('\n'));
  for (const line of touching) t.regex(line, /rename.*\/\.cni-install-.* = 0$/);
  t.deepEqual(pluginNames(binDir).sort(), names.sort());
  t.is(readdirSync(binDir).filter((name) => name.startsWith('.')).length, 1);
});
