/**
 * Packages the built executables, into dist/package:
 *
 *     node scripts/package.ts [x64|arm64]
 *
 * Executables for another architecture are built first.
 *
 * - cni-plugins-linux-ARCH-vVERSION.tgz, laid out like the reference plugins' release, so that the same
 *   `tar -C /opt/cni/bin -xzf` installs it;
 * - cni-plugins-ts_VERSION_ARCH.deb, which takes the place of Debian's containernetworking-plugins;
 * - the SHA-256 and SHA-512 of each.
 *
 * The same executables give the same bytes: all times are that of SOURCE_DATE_EPOCH, or else of the last
 * commit. With COMPRESSION_LEVEL=1, they take a third of the time, but are larger.
 */

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import {
  chmodSync,
  cpSync,
  existsSync,
  lutimesSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  utimesSync,
  writeFileSync,
} from 'node:fs';
import { dirname, join } from 'node:path';
import type { Shell } from '../cli/completion/scripts.ts';
import { makeCommand } from '../cli/main.ts';
import { privatePrefix } from '../launcher/launch.ts';
import packageJson from '../package.json' with { type: 'json' };
import { copyDocuments } from './documents.ts';
import { manPages } from './man.ts';
import { sourceSuite } from './suite.ts';

const root = join(import.meta.dirname, '..');
const arch = process.argv[2] ?? process.arch;
/** What Go, and with it the reference release, and Debian call the architecture. */
const architecture = { x64: 'amd64', arm64: 'arm64' }[arch];
if (!architecture) fail(`There is no package for "${arch}". Name x64 or arm64`);
const binDir = join(root, arch === process.arch ? 'dist/bin' : `dist/${arch}/bin`);
if (arch !== process.arch)
  execFileSync(process.execPath, [join(root, 'scripts/build.ts'), arch], { stdio: 'inherit' });
else if (!existsSync(binDir)) fail(`"${binDir}" is missing. Run "npm run build" first`);
const { version } = packageJson;
const epoch = process.env.SOURCE_DATE_EPOCH ?? output('git', ['log', '-1', '--format=%ct']).trim();
const manual = await manPages(() => makeCommand(sourceSuite()), new Date(Number(epoch) * 1000));
/** As gzip(1) counts: 1 is quickest, 9 is smallest. */
const compression = process.env.COMPRESSION_LEVEL ?? '6';
const outDir = join(root, 'dist/package');
const staging = join(root, 'build/package', arch);
/** A copy of the built tree, whose files get the modes and times for the packages. */
const built = join(staging, 'bin');

rmSync(staging, { recursive: true, force: true });
for (const directory of [outDir, staging]) mkdirSync(directory, { recursive: true });
// Only one version of each architecture is kept, which packaging/Dockerfile takes.
for (const file of readdirSync(outDir))
  if (new RegExp(`[-_]${architecture}[-.]`).test(file)) rmSync(join(outDir, file));
run('cp', ['--archive', binDir, built]);
for (const file of [makeArchive(), makeDebianPackage()]) {
  for (const algorithm of ['sha256', 'sha512'])
    writeFileSync(
      join(outDir, `${file}.${algorithm}`),
      `${createHash(algorithm)
        .update(readFileSync(join(outDir, file)))
        .digest('hex')}  ${file}\n`,
    );
  console.log(`${join(outDir, file)}: ${Math.round(statSync(join(outDir, file)).size / 1e6)} MB`);
}

/** The archive: plugins at the top, where runtimes look for them once it is unpacked. @returns its name. */
function makeArchive(): string {
  const name = `cni-plugins-linux-${architecture}-v${version}.tgz`;
  const tree = join(staging, 'archive');
  linkExecutables(tree);
  copyDocuments(tree);
  writeLicenses(join(tree, 'licenses'));
  writeCompletion(join(tree, 'completion/cni.bash'), 'bash');
  writeCompletion(join(tree, 'completion/_cni'), 'zsh');
  writeCompletion(join(tree, 'completion/cni.fish'), 'fish');
  writeManPages(join(tree, 'man'));
  settle(tree);
  const tar = join(staging, 'archive.tar');
  const flags = ['--sort=name', '--format=gnu', '--owner=0', '--group=0', '--numeric-owner'];
  run('tar', [...flags, '--directory', tree, '--create', '--file', tar, '.']);
  run('gzip', [`-${compression}`, '--no-name', '--force', tar]);
  cpSync(`${tar}.gz`, join(outDir, name));
  return name;
}

/**
 * The Debian package. Executables go where Debian's runtimes look, /usr/lib/cni: /opt is not for packages of
 * a distribution, and "cni install" serves the runtimes that look there.
 * @returns its name.
 */
function makeDebianPackage(): string {
  const name = `${packageJson.name}_${version}_${architecture}.deb`;
  const tree = join(staging, 'debian');
  const doc = join(tree, 'usr/share/doc', packageJson.name);
  linkExecutables(join(tree, 'usr/lib/cni'));
  mkdirSync(join(tree, 'usr/bin'));
  symlinkSync('../lib/cni/cni', join(tree, 'usr/bin/cni'));
  writeUnits(join(tree, 'usr/lib/systemd/system'));
  cpSync(join(root, 'packaging/debian/copyright'), join(doc, 'copyright'));
  copyDocuments(doc);
  // This is Debian's name for samples; the documents refer to conf/.
  renameSync(join(doc, 'conf'), join(doc, 'examples'));
  symlinkSync('examples', join(doc, 'conf'));
  writeLicenses(join(doc, 'licenses'));
  writeCompletion(join(tree, 'usr/share/bash-completion/completions/cni'), 'bash');
  writeCompletion(join(tree, 'usr/share/zsh/vendor-completions/_cni'), 'zsh');
  writeCompletion(join(tree, 'usr/share/fish/vendor_completions.d/cni.fish'), 'fish');
  const pages = join(tree, 'usr/share/man/man1');
  writeManPages(pages);
  run('gzip', ['-9', '--no-name', ...readdirSync(pages).map((file) => join(pages, file))]);

  // Not the allocated blocks, which depend on when the file system allocates them.
  const installedSize = output('du', ['--summarize', '--apparent-size', '--block-size=1K', tree]).split(
    '\t',
  )[0]!;
  const control = readFileSync(join(root, 'packaging/debian/control'), 'utf8')
    .replace('@VERSION@', version)
    .replace('@ARCHITECTURE@', architecture!)
    .replace('@INSTALLED_SIZE@', installedSize);
  mkdirSync(join(tree, 'DEBIAN'));
  writeFileSync(join(tree, 'DEBIAN/control'), control);
  for (const script of ['postinst', 'prerm', 'postrm'])
    cpSync(join(root, 'packaging/debian', script), join(tree, 'DEBIAN', script));
  settle(tree);
  const env = { ...process.env, SOURCE_DATE_EPOCH: epoch };
  run(
    'dpkg-deb',
    ['--root-owner-group', '-Zgzip', `-z${compression}`, '--build', tree, join(outDir, name)],
    env,
  );
  return name;
}

/** Puts the built tree into a directory by hard links, so that an archive contains each file only once. */
function linkExecutables(directory: string): void {
  mkdirSync(directory, { recursive: true });
  run('cp', ['--archive', '--link', `${built}/.`, directory]);
}

/** The units of the agent and of the DHCP daemon, with the path where the package has these. */
function writeUnits(directory: string): void {
  mkdirSync(directory, { recursive: true });
  const source = join(root, 'conf/systemd');
  for (const file of readdirSync(source)) {
    const unit = readFileSync(join(source, file), 'utf8');
    writeFileSync(join(directory, file), unit.replaceAll('/opt/cni/bin/', '/usr/lib/cni/'));
  }
}

/** The licences of what the tree contains, which the build put into its private directory. */
function writeLicenses(directory: string): void {
  const hidden = readdirSync(built).find((name) => name.startsWith(privatePrefix));
  if (!hidden) fail(`"${binDir}" has no private directory. Run "npm run build" again`);
  cpSync(join(built, hidden, 'licences'), directory, { recursive: true });
}

/** Asks this machine's build of the command for its completion, which is the same for all architectures. */
function writeCompletion(file: string, shell: Shell): void {
  mkdirSync(dirname(file), { recursive: true });
  writeFileSync(file, output(join(root, 'dist/bin/cni'), ['completion', shell]));
}

function writeManPages(directory: string): void {
  mkdirSync(directory, { recursive: true });
  for (const [file, text] of manual) writeFileSync(join(directory, file), text);
}

/** Sets the modes of files, which a umask could have changed, and gives everything the same time. */
function settle(tree: string): void {
  const time = Number(epoch);
  for (const entry of readdirSync(tree, { recursive: true, withFileTypes: true })) {
    const path = join(entry.parentPath, entry.name);
    if (entry.isDirectory()) chmodSync(path, 0o755);
    else if (entry.isFile()) chmodSync(path, statSync(path).mode & 0o100 ? 0o755 : 0o644);
    lutimesSync(path, time, time);
  }
  chmodSync(tree, 0o755);
  utimesSync(tree, time, time);
}

function run(file: string, args: readonly string[], env = process.env): void {
  execFileSync(file, args, { stdio: ['ignore', 'ignore', 'inherit'], env });
}

function output(file: string, args: readonly string[], env = process.env): string {
  return execFileSync(file, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'inherit'], env });
}

function fail(message: string): never {
  console.error(message);
  process.exit(1);
}
