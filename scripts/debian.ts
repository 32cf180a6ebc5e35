/** Packages of another suite or architecture of Debian, unpacked without being installed. */

import { execFileSync } from 'node:child_process';
import { mkdirSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';

const cache = join(import.meta.dirname, '../build/debian');
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
/** After how many milliseconds an unpacked package is looked for anew. */
const fresh = 24 * 3600 * 1000;

/** Which archive a package is to come from. */
export interface Archive {
  /** Such as "sid"; this machine's own unless given. */
  suite?: string;
  /** Debian's name of the architecture; this machine's own unless given. */
  architecture?: string;
}

/** A package on disk. */
export interface DebianPackage {
  version: string;
  /** What has its files, as "/" would after installing it. */
  directory: string;
}

/**
 * The newest version that the archive has, from the mirror that this machine uses.
 * @throws Error when it cannot be had.
 */
export function cachedPackage(name: string, archive: Archive = {}): DebianPackage {
  const suite = archive.suite ?? ownSuite();
  const architecture = archive.architecture ?? ask('dpkg', ['--print-architecture']);
  const directory = join(cache, `${suite}-${architecture}`);
  const unpacked = join(directory, name);
  const versionFile = join(directory, `${name}.version`);
  const known = statSync(versionFile, { throwIfNoEntry: false });
  if (!known || Date.now() - known.mtimeMs > fresh)
    try {
      writeFileSync(versionFile, fetch(name, suite, architecture, directory, unpacked));
    } catch (error) {
      const reason = String((error as { stderr?: Buffer }).stderr ?? error)
        .trim()
        .split('\n')
        .at(-1);
      throw new Error(`Debian's "${name}" of ${suite} for ${architecture} cannot be had: ${reason}`, {
        cause: error,
      });
    }
  return { version: readFileSync(versionFile, 'utf8'), directory: unpacked };
}

/** Downloads and unpacks a package with lists of its own: the machine's stay as they are. @returns its version. */
function fetch(
  name: string,
  suite: string,
  architecture: string,
  directory: string,
  unpacked: string,
): string {
  const download = join(directory, 'download');
  rmSync(download, { recursive: true, force: true });
  for (const needed of ['lists/partial', 'cache/archives/partial', 'download'])
    mkdirSync(join(directory, needed), { recursive: true });
  const sources = join(directory, 'sources.list');
  writeFileSync(sources, `deb [signed-by=${keyring}] ${mirror()} ${suite} main\n`);
  const options = {
    'Dir::Etc::SourceList': sources,
    'Dir::Etc::SourceParts': '/dev/null',
    'Dir::State::Lists': join(directory, 'lists'),
    'Dir::State::Status': '/dev/null',
    'Dir::Cache': join(directory, 'cache'),
    'APT::Architecture': architecture,
    'APT::Architectures': architecture,
    'APT::Sandbox::User': 'root',
  };
  const flags = Object.entries(options).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
  const apt = (...args: string[]) =>
    execFileSync('apt-get', ['-qq', ...flags, ...args], {
      cwd: download,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
  apt('update');
  apt('download', name);
  const [file] = readdirSync(download);
  if (!file) throw new Error('apt-get downloaded nothing');
  const archive = join(download, file);
  execFileSync('dpkg-deb', ['--extract', archive, `${unpacked}.new`]);
  rmSync(unpacked, { recursive: true, force: true });
  renameSync(`${unpacked}.new`, unpacked);
  return ask('dpkg-deb', ['--field', archive, 'Version']);
}

/** The mirror that this machine has for Debian itself, beside those of security updates and of others. */
function mirror(): string {
  const lines = ask('apt-get', ['indextargets', '--format', '$(SITE)', 'Origin: Debian', 'Label: Debian']);
  const [first] = lines.split('\n');
  return first || 'http://deb.debian.org/debian';
}

function ownSuite(): string {
  const codename = /^VERSION_CODENAME=(.+)$/m.exec(readFileSync('/etc/os-release', 'utf8'))?.[1];
  if (!codename) throw new Error('"/etc/os-release" does not tell which release of Debian this is');
  return codename;
}

function ask(program: string, args: readonly string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
}
