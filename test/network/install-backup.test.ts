/**
 * What `cni install` replaces is kept, and put back by --rollback and --uninstall, whenever it is killed.
 * Runs once: no agent takes part.
 */

import { execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import {
  copyFileSync,
  existsSync,
  linkSync,
  lstatSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { basename, join } from 'node:path';
import { createInterface } from 'node:readline';
import test, { type ExecutionContext } from 'ava';
import { privatePrefix } from '../../launcher/launch.ts';
import { Random } from '../../scripts/random.ts';
import { command, directory, here } from '../support/command.ts';
import { pluginNames, suites } from '../support/plugin.ts';
import { installPatience } from '../support/run.ts';

const names = pluginNames(suites.ours).sort();
const hidden = readdirSync(suites.ours).find((name) => name.startsWith(privatePrefix))!;
/** The reference plugins that the tests replace; "vlan" is a link to another directory. */
const foreign = ['bridge', 'host-local', 'portmap', 'vlan'];

/** Another build of this suite: the name of its private directory is the only difference. */
function makeBuild(bin: string, digit: string): void {
  const other = hidden.slice(0, -4) + digit.repeat(4);
  execFileSync('cp', ['--archive', '--link', join(suites.ours, hidden), join(bin, other)]);
  const launcher = readFileSync(join(suites.ours, 'cni'), 'latin1');
  writeFileSync(join(bin, 'cni'), Buffer.from(launcher.replaceAll(hidden, other), 'latin1'), { mode: 0o755 });
  for (const name of names.filter((one) => one !== 'cni')) linkSync(join(bin, 'cni'), join(bin, name));
}

/** Makes a directory with plugins of the reference suite, and one that is nobody's. */
function makeReferenceHost(bin: string): void {
  writeFileSync(join(bin, 'my-plugin'), '#!/bin/sh\n');
  for (const name of foreign.slice(0, -1)) copyFileSync(join(suites.reference, name), join(bin, name));
  symlinkSync(join(suites.reference, 'vlan'), join(bin, 'vlan'));
}

const install = (bin: string, options: string[] = [], from = command) =>
  here.tryRun([from, 'install', '--bin-dir', bin, ...options], { timeout: installPatience });

/** Copies a directory, with hard links to its files. */
const linkAll = (from: string, to: string) => execFileSync('cp', ['--archive', '--link', from, to]);

const prepared = mkdtempSync(join(tmpdir(), 'cni-install-backup-'));
test.after.always(() => rmSync(prepared, { recursive: true }));

/**
 * The directories that tests begin with; an installation starts every plugin, so that these are made once.
 * "other" and "third" are builds, and "reference" has plugins of another suite; in "first", these were
 * replaced by the other build, and in "second" by this one after that.
 */
type Scene = 'other' | 'third' | 'reference' | 'first' | 'second';
test.before('install what tests begin with', async (t) => {
  t.timeout(600_000);
  const path = (scene: Scene) => join(prepared, scene);
  for (const scene of ['other', 'third', 'reference'] as const) mkdirSync(path(scene));
  makeBuild(path('other'), '0');
  makeBuild(path('third'), '1');
  makeReferenceHost(path('reference'));
  linkAll(path('reference'), path('first'));
  const first = await install(path('first'), [], join(path('other'), 'cni'));
  t.is(first.exit, 0, first.stderr);
  linkAll(path('first'), path('second'));
  const second = await install(path('second'));
  t.is(second.exit, 0, second.stderr);
  t.regex(second.stdout, /"cni install --rollback" puts it back/);
});

/** The test's own copy of one of these directories. */
function begin(t: ExecutionContext, scene: Scene): string {
  const bin = join(directory(t), scene);
  linkAll(join(prepared, scene), bin);
  return bin;
}

/** Names in a directory, hidden ones too, each with what identifies it: its inode, its target or its type. */
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

/**
 * Our plugins that do not answer, of which a runtime would see an ADD fail. Names that are links to one file
 * start in the same way, so that only one of them is tried.
 */
async function failing(bin: string, among = names): Promise<string[]> {
  const plugins = among.filter((name) => name !== 'cni');
  const files = new Map(plugins.map((name) => [statSync(join(bin, name)).ino, name]));
  const calls = [...files.values()].map(async (name) => {
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

const builds = (bin: string) => [...new Set(names.map((name) => buildOf(bin, name)))];
const [other, third] = ['0', '1'].map((digit) => hidden.slice(0, -4) + digit.repeat(4)) as [string, string];
/** What there was before the first installation, whichever directory it was in. */
const before = () => contents(join(prepared, 'reference'));

test('uninstall puts back the plugins of another suite that were replaced first, after several installations', async (t) => {
  const bin = begin(t, 'second');
  t.deepEqual(builds(bin), [hidden]);
  const removed = await install(bin, ['--uninstall']);
  t.is(removed.exit, 0, removed.stderr);
  for (const name of foreign) t.regex(removed.stdout, new RegExp(`^${name} +CNI ${name} plugin`, 'm'));
  t.regex(removed.stdout, /^4 executables put back in /m);
  t.regex(removed.stdout, new RegExp(`^${names.length - 4} executables removed from `, 'm'));
  t.deepEqual(contents(bin), before());
});

test('rollback goes back to what was there before the last installation, and only once', async (t) => {
  const bin = begin(t, 'second');
  const newest = join(begin(t, 'third'), 'cni');
  t.is((await install(bin, [], newest)).exit, 0);
  t.deepEqual(privateDirectories(bin).sort(), [hidden, third].sort(), 'of two versions');
  // A second installation of the same build has replaced nothing.
  t.is((await install(bin, [], newest)).exit, 0);
  t.deepEqual(builds(bin), [third]);
  const back = await install(bin, ['--rollback']);
  t.is(back.exit, 0, back.stderr);
  t.regex(back.stdout, new RegExp(`^${names.length} executables put back in `, 'm'));
  t.deepEqual(builds(bin), [hidden]);
  t.deepEqual(await failing(bin), []);
  const after = contents(bin);
  const again = await install(bin, ['--rollback']);
  t.is(again.exit, 1);
  t.regex(again.stderr, /nothing to go back to/i);
  t.deepEqual(contents(bin), after);
  t.is((await install(bin, ['--uninstall'])).exit, 0);
  t.deepEqual(contents(bin), before(), 'what was there first is not lost by a rollback');
});

test('rollback of the first installation leaves the directory as it was', async (t) => {
  const bin = begin(t, 'first');
  const back = await install(bin, ['--rollback']);
  t.is(back.exit, 0, back.stderr);
  // Calls that began before it may start from the private directory.
  t.deepEqual(contents(bin), { ...before(), [other]: 'directory' });
  const empty = directory(t);
  t.is((await install(empty)).exit, 0);
  t.deepEqual(pluginNames(empty).sort(), names);
  t.regex((await install(empty, ['--rollback'])).stderr, /nothing to go back to/i);
  t.deepEqual(pluginNames(empty).sort(), names);
});

test('what somebody else has put in the place of this suite is kept', async (t) => {
  for (const option of ['--rollback', '--uninstall']) {
    const bin = begin(t, 'first');
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
  const bin = begin(t, 'second');
  rmSync(join(bin, other), { recursive: true });
  const { exit, stderr } = await install(bin, ['--rollback']);
  t.is(exit, 1);
  t.regex(stderr, /cannot run without ".*0000", which is gone\. Nothing was changed/);
  t.deepEqual(builds(bin), [hidden]);
});

test('an installation replaces another one that is in a lower layer of an overlayfs', async (t) => {
  const script = `set -e
    mount -t tmpfs tmpfs "$2"
    cd "$2"; mkdir upper work bin
    mount -t overlay -o "lowerdir=$1,upperdir=upper,workdir=work" overlay bin
    "$3" install --bin-dir "$2/bin"
    "$2/bin/cni" install --bin-dir "$2/bin" --rollback`;
  const [lower, from] = [begin(t, 'second'), join(begin(t, 'third'), 'cni')];
  const argv = ['unshare', '--mount', 'sh', '-c', script, 'sh', lower, directory(t), from];
  const { exit, stdout, stderr } = await here.tryRun(argv);
  t.is(exit, 0, stderr);
  t.regex(stdout, /"cni install --rollback" puts it back/);
});

test.serial('two installations at once do not take one another for what was there before', async (t) => {
  const bin = begin(t, 'reference');
  const exits = await Promise.all([install(bin), install(bin)]);
  t.deepEqual(
    exits.map(({ exit }) => exit),
    [0, 0],
    exits.map(({ stderr }) => stderr).join('\n'),
  );
  t.is((await install(bin, ['--rollback'])).exit, 0);
  t.deepEqual(contents(bin), { ...before(), [hidden]: 'directory' });
});

test('only one of --agent, --rollback and --uninstall can be given', async (t) => {
  const { exit, stderr } = await install(directory(t), ['--rollback', '--uninstall']);
  t.is(exit, 2);
  t.regex(stderr, /exclude one another/);
});

/** System calls that change the contents of directories. */
const changing = ['rename', 'link', 'symlink', 'unlink', 'mkdir', 'rmdir', 'chmod', 'fchmod']
  .flatMap((name) => [name, `${name}at`])
  .map((name) => `?${name}`)
  .join();

/**
 * Runs `cni install`, and stops it after each change of a directory: what is there then is what is left if it
 * is killed there.
 * @returns copies of the directory at these moments, with hard links to the files.
 */
async function copiesDuring(t: ExecutionContext, bin: string, options: readonly string[]): Promise<string[]> {
  const into = directory(t);
  const copies: string[] = [];
  const strace = ['-qq', '-e', `trace=${changing}`, '-e', `inject=${changing}:signal=STOP`];
  const shell = ['sh', '-c', 'echo $$ >&2; exec "$@"', 'sh'];
  const child = spawn('strace', [...strace, ...shell, command, 'install', '--bin-dir', bin, ...options], {
    stdio: ['ignore', 'ignore', 'pipe'],
  });
  const ended = once(child, 'exit');
  let pid = 0;
  for await (const line of createInterface(child.stderr)) {
    pid ||= Number(line);
    if (!line.startsWith('--- stopped by SIGSTOP')) continue;
    const copy = join(into, `${copies.length}`);
    linkAll(bin, copy);
    copies.push(copy);
    process.kill(pid, 'SIGCONT');
  }
  t.deepEqual(await ended, [0, null]);
  return copies;
}

/** What decides whether an executable works: itself, and its private directory, if it has one. */
function substance(bin: string, name: string): string {
  const hasOwn = names.includes(name) && statSync(join(bin, name)).size < 1_000_000;
  const own = hasOwn ? buildOf(bin, name) : undefined;
  const files = own && existsSync(join(bin, own)) ? contents(join(bin, own)) : own && `"${own}" is missing`;
  return JSON.stringify([statSync(join(bin, name)).ino, files]);
}

/** How many executables of the other build are kept for a rollback. */
function keptOfOther(bin: string): number {
  const kept = join(bin, '.cni-backup/previous');
  return existsSync(kept) ? readdirSync(kept).filter((name) => buildOf(kept, name) === other).length : 0;
}

test('an installation that ends half way says so, and is finished by another, or by a rollback', async (t) => {
  for (const options of [[], ['--rollback']]) {
    const bin = begin(t, 'first');
    const script = 'mount --bind "$1/macvlan" "$1/macvlan" && exec "$2" install --bin-dir "$1"';
    const half = await here.tryRun(['unshare', '--mount', 'sh', '-c', script, 'sh', bin, command]);
    t.is(half.exit, 1);
    t.regex(
      half.stderr,
      /\d+ of \d+ executables in .* were replaced, but "macvlan" and those after it cannot be/,
    );
    t.regex(half.stderr, /run "cni install" again, or "cni install --rollback" to go back\n.*EBUSY/);
    t.is(builds(bin).length, 2);
    const { exit, stderr } = await install(bin, options);
    t.is(exit, 0, stderr);
    t.deepEqual(builds(bin), [options.length === 0 ? hidden : other]);
  }
});

for (const options of [[], ['--rollback'], ['--uninstall']])
  test(`a call that is killed anywhere leaves plugins that work, and the next one finishes it: install ${options}`, async (t) => {
    t.timeout(600_000);
    const bin = begin(t, options.length === 0 ? 'first' : 'second');
    const copies = await copiesDuring(t, bin, options);
    t.true(copies.length > names.length, `${copies.length} changes`);
    const needed = options[0] === '--uninstall' ? foreign : names;
    const working = new Set<string>();
    const seeThatAllWork = async (directory: string, label: string) => {
      const present = names.filter((name) => existsSync(join(directory, name)));
      const untried = present.filter((name) => !working.has(substance(directory, name)));
      t.deepEqual(await failing(directory, untried), [], `failing ${label}`);
      for (const name of untried) working.add(substance(directory, name));
    };
    for (const [number, copy] of copies.entries()) {
      const missing = needed.filter((name) => !existsSync(join(copy, name)));
      t.deepEqual(missing, [], `missing after change ${number}`);
      await seeThatAllWork(copy, `after change ${number}`);
      if (options.length === 0)
        t.true([0, names.length].includes(keptOfOther(copy)), `mixed after change ${number}`);
    }

    // Each call takes a second or two, so that one of the moments must do.
    const seed = Number(process.env.CNI_TEST_SEED ?? 1);
    const random = new Random(seed);
    const copy = copies.splice(random.below(copies.length), 1)[0]!;
    const label = `with CNI_TEST_SEED=${seed}, after change ${basename(copy)}`;
    const finished = await install(copy, [...options]);
    const isDone = options[0] === '--rollback' && /nothing to go back to/i.test(finished.stderr);
    if (!isDone) t.is(finished.exit, 0, `${label}: ${finished.stderr}`);
    await seeThatAllWork(copy, label);
    if (options.length === 0) {
      t.deepEqual(builds(copy), [hidden], label);
      t.is((await install(copy, ['--rollback'])).exit, 0, label);
    }
    if (options[0] !== '--uninstall') {
      t.deepEqual(builds(copy), [other], label);
      t.is((await install(copy, ['--uninstall'])).exit, 0, label);
    }
    const left = Object.entries(contents(copy)).filter(([name]) => !name.startsWith('.cni-install-'));
    t.deepEqual(Object.fromEntries(left), before(), label);
  });

test('no ADD fails while versions are installed and rolled back', async (t) => {
  const bin = begin(t, 'first');
  let running = true;
  const calls = (async () => {
    const failed = [];
    let count = 0;
    for (; running; count++) failed.push(...(await failing(bin, ['host-local', 'bridge'])));
    return { count, failed };
  })();
  t.is((await install(bin)).exit, 0);
  t.is((await install(bin, ['--rollback'])).exit, 0);
  running = false;
  const { count, failed } = await calls;
  t.true(count > 3);
  t.deepEqual(failed, []);
});
