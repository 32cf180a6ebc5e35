/** What `cni install` replaces is kept, and put back by --rollback and --uninstall, whenever it is killed. */

import { execFileSync } from 'node:child_process';
import {
  copyFileSync,
  existsSync,
  linkSync,
  lstatSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import { privatePrefix } from '../../launcher/launch.ts';
import { command, directory, here } from '../support/command.ts';
import { pluginNames, suites } from '../support/plugin.ts';

const names = pluginNames(suites.ours).sort();
const hidden = readdirSync(suites.ours).find((name) => name.startsWith(privatePrefix))!;
/** The reference plugins that the tests replace; "vlan" is a link to another directory. */
const foreign = ['bridge', 'host-local', 'portmap', 'vlan'];

/** Another build of this suite: the name of its private directory is the only difference. */
function otherBuild(t: ExecutionContext, digit: string): string {
  const bin = directory(t);
  const other = hidden.slice(0, -4) + digit.repeat(4);
  execFileSync('cp', ['--archive', '--link', join(suites.ours, hidden), join(bin, other)]);
  const launcher = readFileSync(join(suites.ours, 'cni'), 'latin1');
  writeFileSync(join(bin, 'cni'), Buffer.from(launcher.replaceAll(hidden, other), 'latin1'), { mode: 0o755 });
  for (const name of names.filter((one) => one !== 'cni')) linkSync(join(bin, 'cni'), join(bin, name));
  return bin;
}

/** A directory with plugins of the reference suite, and one that is nobody's. */
function referenceHost(t: ExecutionContext): string {
  const bin = directory(t, { 'my-plugin': '#!/bin/sh\n' });
  for (const name of foreign.slice(0, -1)) copyFileSync(join(suites.reference, name), join(bin, name));
  symlinkSync(join(suites.reference, 'vlan'), join(bin, 'vlan'));
  return bin;
}

const install = (bin: string, options: string[] = [], from = command, prefix: string[] = []) =>
  here.tryRun([...prefix, from, 'install', '--bin-dir', bin, ...options], { timeout: 180_000 });

/** Names in a directory, hidden ones too, each with what tells the file: type, inode and target. */
function contents(bin: string): Record<string, string> {
  const describe = (path: string) => {
    const status = lstatSync(path);
    return status.isSymbolicLink()
      ? readlinkSync(path)
      : status.isDirectory()
        ? 'directory'
        : `${status.ino}`;
  };
  return Object.fromEntries(
    readdirSync(bin)
      .sort()
      .map((name) => [name, describe(join(bin, name))]),
  );
}

/** Those of our names that do not answer, of which a runtime would see an ADD fail. */
async function failing(bin: string, among = names): Promise<string[]> {
  const calls = among
    .filter((name) => name !== 'cni')
    .map(async (name) => {
      const { exit } = await here.tryRun([join(bin, name)], {
        env: { CNI_COMMAND: 'VERSION' },
        stdin: '{"cniVersion": "1.0.0"}',
      });
      return exit === 0 ? [] : [name];
    });
  return (await Promise.all(calls)).flat();
}

const buildOf = (bin: string, name: string) =>
  new RegExp(`${privatePrefix}[0-9a-f]+`).exec(readFileSync(join(bin, name), 'latin1'))?.[0];
const privateDirectories = (bin: string) => readdirSync(bin).filter((name) => name.startsWith(privatePrefix));

test('uninstall puts back the plugins of another suite that were replaced first, after any number of installations', async (t) => {
  const bin = referenceHost(t);
  const before = contents(bin);
  t.is((await install(bin, [], join(otherBuild(t, '0'), 'cni'))).exit, 0);
  const installed = await install(bin);
  t.is(installed.exit, 0, installed.stderr);
  t.is((await install(bin)).exit, 0);
  t.deepEqual([...new Set(names.map((name) => buildOf(bin, name)))], [hidden]);
  const removed = await install(bin, ['--uninstall']);
  t.is(removed.exit, 0, removed.stderr);
  for (const name of foreign) t.regex(removed.stdout, new RegExp(`^${name} +CNI ${name} plugin`, 'm'));
  t.regex(removed.stdout, /^4 executables put back in /m);
  t.regex(removed.stdout, new RegExp(`^${names.length - 4} executables removed from `, 'm'));
  t.deepEqual(contents(bin), before);
});

test('rollback goes back to what was there before the last installation, and only once', async (t) => {
  const bin = referenceHost(t);
  const before = contents(bin);
  const [older, old] = [otherBuild(t, '0'), otherBuild(t, '1')];
  const oldName = buildOf(old, 'cni')!;
  t.is((await install(bin, [], join(older, 'cni'))).exit, 0);
  t.is((await install(bin, [], join(old, 'cni'))).exit, 0);
  const installed = await install(bin);
  t.regex(installed.stdout, /"cni install --rollback" puts it back/);
  t.deepEqual(privateDirectories(bin).sort(), [hidden, oldName].sort(), 'of two versions');
  // A second installation of the same build has replaced nothing.
  t.is((await install(bin)).exit, 0);
  const back = await install(bin, ['--rollback']);
  t.is(back.exit, 0, back.stderr);
  t.regex(back.stdout, new RegExp(`^${names.length} executables put back in `, 'm'));
  t.deepEqual([...new Set(names.map((name) => buildOf(bin, name)))], [oldName]);
  t.deepEqual(await failing(bin), []);
  const again = await install(bin, ['--rollback']);
  t.is(again.exit, 1);
  t.regex(again.stderr, /nothing to go back to/i);
  t.deepEqual(await failing(bin), []);
  t.is((await install(bin, ['--uninstall'])).exit, 0);
  t.deepEqual(contents(bin), before, 'what was there first is not lost by a rollback');
});

test('rollback of the first installation leaves the directory as it was', async (t) => {
  const bin = referenceHost(t);
  const before = contents(bin);
  t.is((await install(bin)).exit, 0);
  const back = await install(bin, ['--rollback']);
  t.is(back.exit, 0, back.stderr);
  // Calls that began before it may start from the private directory.
  t.deepEqual(contents(bin), { ...before, [hidden]: 'directory' });
  const empty = directory(t);
  t.is((await install(empty)).exit, 0);
  t.deepEqual(pluginNames(empty).sort(), names);
  t.regex((await install(empty, ['--rollback'])).stderr, /nothing to go back to/i);
  t.deepEqual(pluginNames(empty).sort(), names);
});

test('what somebody else has put in the place of this suite is kept', async (t) => {
  for (const option of ['--rollback', '--uninstall']) {
    const bin = referenceHost(t);
    t.is((await install(bin)).exit, 0);
    for (const name of ['bridge', 'sbr']) {
      rmSync(join(bin, name));
      copyFileSync(join(suites.reference, 'tuning'), join(bin, name));
    }
    const kept = ['bridge', 'sbr'].map((name) => statSync(join(bin, name)).ino);
    const back = await install(bin, [option]);
    t.is(back.exit, 0, back.stderr);
    t.regex(back.stderr, /Kept, because they are not of this suite: bridge \(CNI tuning .*sbr \(CNI tuning /);
    t.deepEqual(
      ['bridge', 'sbr'].map((name) => statSync(join(bin, name)).ino),
      kept,
    );
    t.deepEqual(pluginNames(bin).sort(), [...foreign, 'my-plugin', 'sbr'].sort());
    t.false(existsSync(join(bin, '.cni-backup')));
  }
});

test('a version that cannot run any more is not put back', async (t) => {
  const [bin, old] = [directory(t), otherBuild(t, '0')];
  t.is((await install(bin, [], join(old, 'cni'))).exit, 0);
  t.is((await install(bin)).exit, 0);
  rmSync(join(bin, buildOf(old, 'cni')!), { recursive: true });
  const { exit, stderr } = await install(bin, ['--rollback']);
  t.is(exit, 1);
  t.regex(stderr, /cannot run without ".*0000", which is gone\. Nothing was changed/);
  t.deepEqual([...new Set(names.map((name) => buildOf(bin, name)))], [hidden]);
});

test('two installations at once do not take one another for what was there before', async (t) => {
  const bin = referenceHost(t);
  const before = contents(bin);
  const exits = await Promise.all([install(bin), install(bin)]);
  t.deepEqual(
    exits.map(({ exit }) => exit),
    [0, 0],
    exits.map(({ stderr }) => stderr).join('\n'),
  );
  t.is((await install(bin, ['--rollback'])).exit, 0);
  t.deepEqual(contents(bin), { ...before, [hidden]: 'directory' });
});

test('only one of --agent, --rollback and --uninstall can be given', async (t) => {
  const { exit, stderr } = await install(directory(t), ['--rollback', '--uninstall']);
  t.is(exit, 2);
  t.regex(stderr, /exclude one another/);
});

/** Kills a call at one of its renamings. @returns false when it has fewer. */
async function killedAt(number: number, bin: string, options: string[]): Promise<boolean> {
  const strace = ['strace', '-f', '-qq', '-o', '/dev/null', '-e', 'trace=rename'];
  const inject = ['-e', `inject=rename:signal=KILL:when=${number}`];
  const { exit } = await install(bin, options, command, [...strace, ...inject]);
  return exit !== 0;
}

test('a call that is killed at any renaming leaves plugins that work, and the next one finishes it', async (t) => {
  t.timeout(300_000);
  const other = otherBuild(t, '0');
  const old = join(other, 'cni');
  const model = referenceHost(t);
  const before = contents(model);
  for (const [options, number] of [
    // Names are saved and marked, four of them twice, then all are replaced.
    [[], 2],
    [[], 8],
    [[], 30],
    [['--rollback'], 8],
    [['--uninstall'], 3],
  ] as const) {
    const label = `${options.join()} ${number}`;
    const bin = join(directory(t), 'bin');
    await here.run(['cp', '--archive', '--link', model, bin]);
    await install(bin, [], old);
    if (options.length > 0) await install(bin);
    t.true(await killedAt(number, bin, [...options]), label);
    t.deepEqual(await failing(bin, foreign), [], label);
    t.deepEqual(
      await failing(
        bin,
        names.filter((name) => existsSync(join(bin, name))),
      ),
      [],
      label,
    );
    const finished = await install(bin, [...options]);
    t.is(finished.exit, 0, `${label}: ${finished.stderr}`);
    t.deepEqual(
      await failing(
        bin,
        names.filter((name) => existsSync(join(bin, name))),
      ),
      [],
      label,
    );
    if (options.length === 0) {
      t.deepEqual([...new Set(names.map((name) => buildOf(bin, name)))], [hidden], label);
      t.is((await install(bin, ['--rollback'])).exit, 0, label);
    }
    if (options[0] !== '--uninstall') {
      t.deepEqual([...new Set(names.map((name) => buildOf(bin, name)))], [buildOf(other, 'cni')], label);
      t.is((await install(bin, ['--uninstall'])).exit, 0, label);
    }
    const left = Object.entries(contents(bin)).filter(([name]) => !name.startsWith('.cni-install-'));
    t.deepEqual(Object.fromEntries(left), before, label);
  }
});

test('no ADD fails while versions are installed and rolled back', async (t) => {
  const bin = directory(t);
  const old = otherBuild(t, '0');
  t.is((await install(bin, [], join(old, 'cni'))).exit, 0);
  let running = true;
  const calls = (async () => {
    const failed = [];
    let count = 0;
    for (; running; count++) failed.push(...(await failing(bin, ['host-local', 'bridge'])));
    return { count, failed };
  })();
  for (let i = 0; i < 2; i++) {
    t.is((await install(bin)).exit, 0);
    t.is((await install(bin, ['--rollback'])).exit, 0);
  }
  running = false;
  const { count, failed } = await calls;
  t.true(count > 3);
  t.deepEqual(failed, []);
});
