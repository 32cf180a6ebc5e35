/** What `npm run package` makes, installed as an operator would. */

import { mkdtempSync, readdirSync, readFileSync, readlinkSync, rmSync, statSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import packageJson from '../../package.json' with { type: 'json' };
import { pluginNames, suites } from '../support/plugin.ts';
import { run } from '../support/run.ts';

const root = join(import.meta.dirname, '../..');
const directory = join(root, 'dist/package');
const architecture = process.arch === 'x64' ? 'amd64' : process.arch;
const archive = `cni-plugins-linux-${architecture}-v${packageJson.version}.tgz`;
const debianPackage = `${packageJson.name}_${packageJson.version}_${architecture}.deb`;
const names = pluginNames(suites.ours).sort();

async function makePackages(): Promise<Record<string, string>> {
  rmSync(directory, { recursive: true, force: true });
  await run([process.execPath, join(root, 'scripts/package.ts')], {
    env: { SOURCE_DATE_EPOCH: '1700000000' },
    timeout: 300_000,
  });
  return Object.fromEntries(
    readdirSync(directory)
      .filter((file) => file.endsWith('.sha256'))
      .map((file) => [file, readFileSync(join(directory, file), 'utf8')]),
  );
}

function scratch(t: ExecutionContext): string {
  const path = mkdtempSync(join(tmpdir(), 'cni-package-'));
  t.teardown(() => rmSync(path, { recursive: true }));
  return path;
}

/** What a plugin says to VERSION. */
async function versionsOf(file: string): Promise<string[]> {
  const text = await run([file], { stdin: '{"cniVersion": "1.0.0"}', env: { CNI_COMMAND: 'VERSION' } });
  return (JSON.parse(text) as { supportedVersions: string[] }).supportedVersions;
}

let checksums: Record<string, string>;
test.before(async () => {
  checksums = await makePackages();
});

test.serial('the same executables give the same packages, whose checksums hold', async (t) => {
  t.deepEqual(Object.keys(checksums).sort(), [`${archive}.sha256`, `${debianPackage}.sha256`]);
  t.deepEqual(await makePackages(), checksums);
  for (const algorithm of ['sha256', 'sha512'])
    for (const file of [archive, debianPackage])
      t.is(
        await run(['env', '--chdir', directory, `${algorithm}sum`, '--check', `${file}.${algorithm}`]),
        `${file}: OK\n`,
      );
});

test('the archive unpacks into a directory of plugins, each a name of one file', async (t) => {
  const bin = scratch(t);
  await run(['tar', '--directory', bin, '-xzf', join(directory, archive)]);
  for (const name of names) {
    const { mode, ino } = statSync(join(bin, name));
    t.is(mode & 0o7777, 0o755, name);
    t.is(ino, statSync(join(bin, 'bridge')).ino, name);
  }
  t.deepEqual(
    readdirSync(bin)
      .filter((name) => !names.includes(name) && !name.startsWith('.cni-plugins-'))
      .sort(),
    ['LICENSE', 'README.md', 'completion', 'conf', 'docs', 'licenses'],
  );
  t.true((await versionsOf(join(bin, 'bridge'))).includes('1.1.0'));
  t.regex(readFileSync(join(bin, 'completion/cni.bash'), 'utf8'), /^complete .* cni$/m);
  await run(['bash', '-n', join(bin, 'completion/cni.bash')]);
});

test('the Debian package installs, runs, and is removed completely', async (t) => {
  const target = scratch(t);
  await run([
    'sh',
    '-c',
    'cd "$1" && mkdir -p var/lib/dpkg/updates var/lib/dpkg/info && touch var/lib/dpkg/status',
    'sh',
    target,
  ]);
  // Nothing is in there, and nothing is needed.
  const dpkg = ['dpkg', `--root=${target}`, '--log=/dev/null'];
  await run([...dpkg, '--install', join(directory, debianPackage)]);
  t.deepEqual(pluginNames(join(target, 'usr/lib/cni')).sort(), names);
  t.true((await versionsOf(join(target, 'usr/lib/cni/bridge'))).includes('1.1.0'));
  t.is(readlinkSync(join(target, 'usr/bin/cni')), '../lib/cni/cni');
  t.true((await run([join(target, 'usr/bin/cni'), '--version'])).includes(packageJson.version));
  t.regex(
    readFileSync(join(target, 'lib/systemd/system/cni-dhcp.service'), 'utf8'),
    /^ExecStart=\/usr\/lib\/cni\/dhcp daemon$/m,
  );
  await run([...dpkg, '--purge', packageJson.name]);
  t.deepEqual(readdirSync(target), ['var']);
});

test('apt installs the Debian package in place of the reference plugins', async (t) => {
  const plan = await run(['apt-get', 'install', '--simulate', join(directory, debianPackage)]);
  t.regex(plan, new RegExp(`^Inst ${packageJson.name} `, 'm'));
  t.regex(plan, /^Remv containernetworking-plugins /m);
});
