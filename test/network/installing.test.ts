/** What `cni install` and the image do on a host, and what they say. Runs once: no agent takes part. */

import { copyFileSync, mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { load } from 'js-yaml';
import type { IDaemonSet } from 'kubernetes-models/apps/v1/DaemonSet';
import { pluginNames, suites } from '../support/plugin.ts';
import { setpriv } from '../support/privileges.ts';
import { installPatience, run, tryRun } from '../support/run.ts';

const manifest = join(import.meta.dirname, '../../conf/kubernetes/daemonset.yaml');

function scratch(t: ExecutionContext): string {
  const directory = mkdtempSync(join(tmpdir(), 'cni-installing-'));
  t.teardown(() => rmSync(directory, { recursive: true }));
  return directory;
}

/** All that is in a directory, with its owner and mode, by path. */
function ownersIn(directory: string): Map<string, string> {
  const paths = readdirSync(directory, { recursive: true, encoding: 'utf8' });
  return new Map(
    ['.', ...paths].map((path) => {
      const { uid, gid, mode } = statSync(join(directory, path));
      return [path, `${uid}:${gid} ${(mode & 0o7777).toString(8)}`];
    }),
  );
}

test('what is installed belongs to root alone, whoever built or unpacked it', async (t) => {
  const directory = scratch(t);
  const [built, binDir] = [join(directory, 'built'), join(directory, 'bin')];
  await run(['cp', '--archive', suites.ours, built]);
  await run(['chown', '--recursive', '1000:1000', built]);
  await run(['chmod', '--recursive', 'g+w', built]);
  const install = () =>
    run([join(built, 'cni'), 'install', '--bin-dir', binDir], { timeout: installPatience });
  await install();
  const owners = ownersIn(binDir);
  const isProgram = (path: string) => /cni-plugins$|\.so\.[0-9]+$/.test(path) || !path.includes('/');
  for (const [path, owner] of owners)
    t.is(
      owner,
      isProgram(path) || path.endsWith('/licences') || path.endsWith('/systemd') ? '0:0 755' : '0:0 644',
      path,
    );
  const program = [...owners.keys()].find((path) => path.endsWith('/cni-plugins'))!;
  t.not(statSync(join(binDir, program)).ino, statSync(join(built, program)).ino);

  await run(['chown', '1000:1000', join(binDir, program)]);
  await install();
  t.deepEqual(ownersIn(binDir), owners, 'a private directory that is there already is put right');

  // As a power failure leaves it after "tar -x", which flushes nothing to disk.
  const zeros = ['if=/dev/zero', `of=${join(binDir, program)}`, 'bs=4096', 'seek=256', 'count=1'];
  await run(['dd', ...zeros, 'conv=notrunc', 'status=none']);
  await install();
  await run(['cmp', join(binDir, program), join(built, program)]);
});

test('the DaemonSet lets install write to a directory of another user, and without that it says what it lacks', async (t) => {
  const binDir = join(scratch(t), 'bin');
  mkdirSync(binDir);
  await run(['chown', '1000:1000', binDir]);
  const { spec } = load(readFileSync(manifest, 'utf8')) as IDaemonSet;
  const { drop, add = [] } = spec!.template.spec!.initContainers![0]!.securityContext!.capabilities!;
  t.deepEqual(drop, ['ALL']);
  const install = (...capabilities: string[]) =>
    tryRun([...setpriv(capabilities), join(suites.ours, 'cni'), 'install', '--bin-dir', binDir], {
      timeout: installPatience,
    });
  const refused = await install();
  t.is(refused.exit, 1);
  t.regex(refused.stderr, /permission is denied, and root lacks CAP_DAC_OVERRIDE/);
  t.notRegex(refused.stderr, /Run this as root/);
  t.deepEqual(readdirSync(binDir), []);
  const { exit, stderr } = await install(...add);
  t.is(exit, 0, stderr);
  t.deepEqual(pluginNames(binDir).sort(), pluginNames(suites.ours).sort());
});

test('install puts each new executable in the place of the old one, which is never gone', async (t) => {
  const directory = scratch(t);
  const binDir = join(directory, 'bin');
  // Separate files: renaming one hard link over another one of the same file does nothing.
  mkdirSync(binDir);
  const names = pluginNames(suites.ours);
  for (const name of names) copyFileSync(join(suites.ours, name), join(binDir, name));
  const before = new Map(names.map((name) => [name, statSync(join(binDir, name)).ino]));
  const log = join(directory, 'calls');
  const calls = 'trace=unlink,unlinkat,rename,renameat,renameat2,fsync';
  const strace = ['strace', '-f', '-y', '-qq', '-e', calls, '-o', log];
  await run([...strace, join(suites.ours, 'cni'), 'install', '--bin-dir', binDir], {
    timeout: installPatience,
  });
  for (const name of names)
    t.not(statSync(join(binDir, name)).ino, before.get(name), `"${name}" is replaced`);
  const lines = readFileSync(log, 'utf8').split('\n');
  const isPlaced = (line: string) => names.some((name) => line.includes(`"${binDir}/${name}"`));
  for (const file of ['launcher', 'cni-plugins', 'libc.so.6']) {
    const synced = lines.findIndex((line) => /fsync\(/.test(line) && line.includes(`/${file}>`));
    t.true(synced >= 0 && synced < lines.findIndex(isPlaced), `"${file}" is on disk first`);
  }
  const touching = lines.filter(isPlaced);
  t.is(touching.length, names.length, touching.join('\n'));
  for (const line of touching) t.regex(line, /rename.*\/\.cni-install-.* = 0$/);
  t.deepEqual(pluginNames(binDir).sort(), names.sort());
  t.is(readdirSync(binDir).filter((name) => name.startsWith('.')).length, 1);
});
