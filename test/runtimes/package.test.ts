/** What `npm run package` makes, installed as an operator would. Runs once: no agent takes part. */

import {
  existsSync,
  lstatSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  readlinkSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test, { type ExecutionContext } from 'ava';
import packageJson from '../../package.json' with { type: 'json' };
import { makeHost } from '../support/host.ts';
import { deadLinks } from '../support/links.ts';
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
    env: { SOURCE_DATE_EPOCH: '1700000000', COMPRESSION_LEVEL: '1' },
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

/** The versions in a plugin's answer to VERSION. */
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
    [
      'CHANGELOG.md',
      'CONTRIBUTING.md',
      'LICENSE',
      'README.md',
      'SECURITY.md',
      'bench',
      'completion',
      'conf',
      'docs',
      'licenses',
      'man',
    ],
  );
  t.deepEqual(deadLinks(bin), []);
  t.true((await versionsOf(join(bin, 'bridge'))).includes('1.1.0'));
  for (const [file, shell] of [
    ['cni.bash', 'bash'],
    ['_cni', 'zsh'],
    ['cni.fish', 'fish'],
  ] as const) {
    t.is(
      readFileSync(join(bin, 'completion', file), 'utf8'),
      await run([join(bin, 'cni'), 'completion', shell]),
    );
    await run([shell, '-n', join(bin, 'completion', file)]);
  }
  t.true(readdirSync(join(bin, 'man')).includes('cni-install.1'));
});

/**
 * This machine as a copy-on-write overlay, without the reference plugins. Its init seems to be systemd;
 * systemctl notes what it is told, and does only what needs no more than files. mandb, which would index all
 * manual pages again whenever a package changes, does nothing.
 */
async function makeMachine(t: ExecutionContext) {
  const host = await makeHost(t);
  await host.run(['mkdir', '/run/upper', '/run/work', '/run/machine']);
  const layers = 'lowerdir=/,upperdir=/run/upper,workdir=/run/work';
  await host.run(['mount', '-t', 'overlay', '-o', layers, 'overlay', '/run/machine']);
  const script = `set -e
    mount -t tmpfs tmpfs /run/machine/run
    mount -t proc proc /run/machine/proc
    mount --bind /dev /run/machine/dev
    mount -t tmpfs tmpfs /run/machine/tmp
    mkdir -p /run/machine/run/systemd/system
    rm -f /run/machine/usr/sbin/policy-rc.d
    mv /run/machine/usr/bin/systemctl /run/machine/usr/bin/systemctl.real
    ln -sf true /run/machine/usr/bin/mandb
    cp ${join(directory, debianPackage)} /run/machine/tmp
    chroot /run/machine dpkg --purge --force-depends containernetworking-plugins`;
  await host.run(['sh', '-c', script]);
  writeFileSync(host.file('/run/machine/usr/bin/systemctl'), systemctl, { mode: 0o755 });
  return {
    file: (path: string) => host.file(`/run/machine${path}`),
    run: (...argv: string[]) => host.run(['chroot', '/run/machine', ...argv]),
    /** What systemctl was told to do since the last time. */
    async told() {
      const log = host.file('/run/machine/run/systemctl');
      const lines = existsSync(log) ? readFileSync(log, 'utf8').trim().split('\n') : [];
      rmSync(log, { force: true });
      return lines.filter((line) => / (?:start|stop|restart|daemon-reload)\b/.test(` ${line}`));
    },
  };
}

/** podman is installed here, and depends on a package of other plugins, which ours replaces. */
const forced = ['--force-depends'];
const systemctl = `#!/bin/sh
echo "$*" >>/run/systemctl
case "$*" in
  *is-enabled* | *preset*) exec systemctl.real --root=/ "$@" ;;
  *is-active*) for unit; do :; done; exec test -e "/run/$unit.active" ;;
esac
`;
const wanted = '/etc/systemd/system/sockets.target.wants/cni-agent.socket';

test('the Debian package installs, runs, and is removed completely', async (t) => {
  const machine = await makeMachine(t);
  await machine.run('dpkg', '--install', `/tmp/${debianPackage}`);
  t.deepEqual(
    pluginNames(machine.file('/usr/lib/cni'))
      .filter((name) => names.includes(name))
      .sort(),
    names,
  );
  const version = '{"cniVersion": "1.0.0"}';
  const chroot = ['env', 'CNI_COMMAND=VERSION', 'sh', '-c', `echo '${version}' | /usr/lib/cni/bridge`];
  t.regex(await machine.run(...chroot), /1\.1\.0/);
  t.is(readlinkSync(machine.file('/usr/bin/cni')), '../lib/cni/cni');
  t.true((await machine.run('cni', '--version')).includes(packageJson.version));
  const unit = (name: string) => readFileSync(machine.file(`/usr/lib/systemd/system/${name}`), 'utf8');
  t.regex(unit('cni-dhcp.service'), /^ExecStart=\/usr\/lib\/cni\/dhcp daemon$/m);
  t.regex(unit('cni-agent.service'), /^ExecStart=\/usr\/lib\/cni\/cni agent --idle-timeout 600$/m);
  for (const name of ['prom-client', '@opentelemetry-api', 'yargs'])
    t.true(existsSync(machine.file(`/usr/share/doc/${packageJson.name}/licenses/${name}`)), name);
  t.deepEqual(deadLinks(machine.file(`/usr/share/doc/${packageJson.name}`)), []);

  const installed = (await machine.run('dpkg', '--listfiles', packageJson.name)).trim().split('\n');
  t.true(installed.includes('/usr/lib/cni/bridge'));
  for (const file of [
    'bash-completion/completions/cni',
    'zsh/vendor-completions/_cni',
    'fish/vendor_completions.d/cni.fish',
  ])
    t.true(installed.includes(`/usr/share/${file}`), file);
  t.regex(await machine.run('man', 'cni-install'), /^NAME\n +cni-install - Install the plugins/m);
  const isFile = (path: string) =>
    lstatSync(machine.file(path), { throwIfNoEntry: false })?.isDirectory() === false;
  t.true(installed.filter(isFile).length > names.length);
  await machine.run('systemctl.real', '--root=/', 'enable', 'cni-dhcp.socket');
  await machine.run('dpkg', ...forced, '--purge', packageJson.name);
  t.deepEqual(installed.filter(isFile), []);
  const units = ['find', '/etc', '/var/lib/systemd', '-name', 'cni-*'];
  t.is(await machine.run(...units), '');
});

test('the Debian package starts the agent, unless the administrator has disabled it, and restarts the DHCP daemon if it runs', async (t) => {
  const machine = await makeMachine(t);
  const install = () => machine.run('dpkg', '--install', `/tmp/${debianPackage}`);
  await install();
  t.regex(readlinkSync(machine.file(wanted)), /\/lib\/systemd\/system\/cni-agent\.socket$/);
  t.deepEqual(await machine.told(), ['--system daemon-reload', '--quiet --system start cni-agent.socket']);
  await machine.run('rm', wanted);
  for (const active of [true, false]) {
    await machine.run(active ? 'touch' : 'rm', '/run/cni-dhcp.service.active');
    await machine.told();
    await install();
    const restarts = (await machine.told()).filter((line) => / restart /.test(line));
    t.deepEqual(restarts, active ? ['--quiet --system restart cni-dhcp.service'] : []);
  }
  t.false(existsSync(machine.file(wanted)), 'an upgrade does not enable it again');
  await machine.run('dpkg', ...forced, '--remove', packageJson.name);
  t.deepEqual(await machine.told(), [
    'stop cni-agent.socket cni-agent.service cni-dhcp.socket cni-dhcp.service',
    '--system daemon-reload',
  ]);
});

test('where systemd does not run, the Debian package starts nothing', async (t) => {
  const machine = await makeMachine(t);
  await machine.run('rmdir', '/run/systemd/system');
  await machine.run('dpkg', '--install', `/tmp/${debianPackage}`);
  await machine.run('dpkg', ...forced, '--purge', packageJson.name);
  t.deepEqual(await machine.told(), []);
});

test('apt installs the Debian package in place of the reference plugins', async (t) => {
  const plan = await run(['apt-get', 'install', '--simulate', join(directory, debianPackage)]);
  t.regex(plan, new RegExp(`^Inst ${packageJson.name} `, 'm'));
  t.regex(plan, /^Remv containernetworking-plugins /m);
});
