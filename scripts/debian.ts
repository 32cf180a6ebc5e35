/** Packages from another suite or architecture of Debian, unpacked without being installed. */

import { execFileSync } from 'node:child_process';
import {
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';

const cache = join(import.meta.dirname, '../build/debian');
const keyring = '/usr/share/keyrings/debian-archive-keyring.gpg';
/** After how many milliseconds to look for a newer version of an unpacked package. */
const fresh = 24 * 3600 * 1000;

/** Which archive a package comes from. */
export interface Archive {
  /** Such as "sid"; by default this machine's own, with its updates. */
  suite?: string;
  /** Debian's name for the architecture; by default this machine's own. */
  architecture?: string;
}

/** A package on disk. */
export interface DebianPackage {
  version: string;
  /** The directory with its files, laid out as below "/" after installing it. */
  directory: string;
}

/**
 * The newest version that the archive has, from the mirror that this machine uses.
 * @throws Error when it cannot be obtained.
 */
export function cachedPackage(name: string, archive: Archive = {}): DebianPackage {
  const architecture = archive.architecture ?? ask('dpkg', ['--print-architecture']);
  const directory = join(cache, `${archive.suite ?? 'own'}-${architecture}`);
  const unpacked = join(directory, name);
  const versionFile = `${unpacked}.version`;
  try {
    if (!isFresh(versionFile)) {
      const version = fetch(name, archive.suite, architecture, directory, unpacked);
      writeFileSync(versionFile, version);
    }
  } catch (error) {
    // What was fetched earlier is better than nothing, as on a machine without a network.
    if (existsSync(versionFile) && existsSync(unpacked))
      return { version: readFileSync(versionFile, 'utf8'), directory: unpacked };
    const reason = String((error as { stderr?: Buffer }).stderr ?? error);
    throw new Error(
      `Debian's "${name}" for ${architecture} cannot be had: ${reason.trim().split('\n').at(-1)?.replace(/\.$/, '')}`,
      { cause: error },
    );
  }
  return { version: readFileSync(versionFile, 'utf8'), directory: unpacked };
}

function isFresh(file: string): boolean {
  const known = statSync(file, { throwIfNoEntry: false });
  return known !== undefined && Date.now() - known.mtimeMs < fresh;
}

/**
 * Downloads and unpacks a package, with package lists of its own: the machine's stay as they are.
 * @returns its version.
 */
function fetch(
  name: string,
  suite: string | undefined,
  architecture: string,
  directory: string,
  unpacked: string,
): string {
  const download = join(directory, 'download');
  rmSync(download, { recursive: true, force: true });
  for (const needed of ['lists/partial', 'cache/archives/partial', 'download'])
    mkdirSync(join(directory, needed), { recursive: true });
  const sources = join(directory, 'sources.list');
  const options = {
    'Dir::Etc::SourceList': sources,
    'Dir::Etc::SourceParts': '/dev/null',
    'Dir::State::Lists': join(directory, 'lists'),
    'Dir::State::Status': '/dev/null',
    'Dir::Cache': join(directory, 'cache'),
    'APT::Architecture': architecture,
    'APT::Architectures': architecture,
    'APT::Sandbox::User': 'root',
    'Acquire::Retries': '0',
    'Acquire::http::Timeout': '10',
  };
  const flags = Object.entries(options).flatMap(([key, value]) => ['-o', `${key}=${value}`]);
  const apt = (...args: string[]) =>
    execFileSync('apt-get', ['-qq', ...flags, ...args], {
      cwd: download,
      stdio: ['ignore', 'ignore', 'pipe'],
    });
  const updated = join(directory, 'updated');
  if (!isFresh(updated)) {
    writeFileSync(sources, sourcesOf(suite));
    apt('update', '--error-on=any');
    writeFileSync(updated, '');
  }
  apt('download', name);
  const [file] = readdirSync(download);
  if (!file) throw new Error('apt-get downloaded nothing');
  const archive = join(download, file);
  rmSync(`${unpacked}.new`, { recursive: true, force: true });
  execFileSync('dpkg-deb', ['--extract', archive, `${unpacked}.new`]);
  rmSync(unpacked, { recursive: true, force: true });
  renameSync(`${unpacked}.new`, unpacked);
  return ask('dpkg-deb', ['--field', archive, 'Version']);
}

/**
 * Lines of sources.list(5): a suite on the mirror that this machine uses, or this machine's own suites with
 * their updates.
 */
function sourcesOf(suite: string | undefined): string {
  const own = ask('apt-get', [
    ...['indextargets', '--format', '$(SITE) $(RELEASE)'],
    ...['Origin: Debian', 'Component: main', 'Created-By: Packages'],
  ]).split('\n');
  const [mirror] = own.filter((line) => !line.endsWith('-security')).map((line) => line.split(' ')[0]);
  if (!mirror) throw new Error('apt-get knows no mirror of Debian. Run "apt-get update"');
  return (suite ? [`${mirror} ${suite}`] : own)
    .map((line) => `deb [signed-by=${keyring}] ${line} main\n`)
    .join('');
}

function ask(program: string, args: readonly string[]): string {
  return execFileSync(program, args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'pipe'] }).trim();
}
