/**
 * What is shipped, as a bill of materials in CycloneDX's format: Node.js and its parts, the npm packages
 * whose code is really in the bundles, the C library and its loader, and the C library that the launcher is
 * linked with. It has neither a time nor a serial number, so that equal trees have equal bills.
 * Source: CycloneDX specification 1.6, https://cyclonedx.org/docs/1.6/json/
 */

import { createHash } from 'node:crypto';
import { readdirSync, readFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { Metafile } from 'esbuild';
import packageJson from '../../package.json' with { type: 'json' };
import packageLock from '../../package-lock.json' with { type: 'json' };
import { loaderChange } from './loader-copy.ts';
import { debianPackageOf, launcherPackage, pinOf, type Target } from './target.ts';

const root = join(import.meta.dirname, '../..');

/** Name of the bill in the private directory. */
export const sbomFile = 'sbom.cdx.json';

/** An npm package whose code is in a bundle. */
export interface BundledPackage {
  readonly name: string;
  readonly version: string;
  /** The SPDX expression in its package.json. */
  readonly license: string;
  /** From package-lock.json: the SHA-512 of its archive, in base64. */
  readonly integrity: string;
  /** File with the text of its licence. */
  readonly licenceFile: string;
}

/** A part, in CycloneDX's terms. */
export interface Component {
  type: 'application' | 'platform' | 'library' | 'file';
  name: string;
  version?: string;
  'bom-ref'?: string;
  purl?: string;
  cpe?: string;
  licenses?: { expression: string }[] | { license: { name: string } }[];
  hashes?: { alg: 'SHA-256' | 'SHA-512'; content: string }[];
  /** How it differs from what it is named after. */
  pedigree?: { notes: string };
  components?: Component[];
}

/** A bill of materials. */
export interface Sbom {
  bomFormat: 'CycloneDX';
  specVersion: '1.6';
  version: 1;
  metadata: { component: Component };
  components: Component[];
  dependencies: { ref: string; dependsOn?: string[] }[];
}

/**
 * The npm packages that esbuild put into bundles.
 * @param metafiles esbuild's accounts of the bundles.
 * @throws Error when a package has no licence to pass on, or package-lock.json does not pin it.
 */
export function bundledPackages(metafiles: readonly Metafile[]): BundledPackage[] {
  const directories = metafiles
    .flatMap(({ outputs }) => Object.values(outputs))
    .flatMap(({ inputs }) => Object.entries(inputs))
    .filter(([, { bytesInOutput }]) => bytesInOutput > 0)
    .flatMap(([file]) => /^.*node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(file)?.[0] ?? []);
  const found = [...new Set(directories)].map((directory) => describe(directory));
  // A version may be installed in several places.
  const byId = new Map(found.map((one) => [`${one.name}@${one.version}`, one]));
  return [...byId.keys()].sort().map((id) => byId.get(id)!);
}

function describe(directory: string): BundledPackage {
  const path = directory.slice(directory.indexOf('node_modules/'));
  const { name, version, license } = JSON.parse(
    readFileSync(join(root, path, 'package.json'), 'utf8'),
  ) as Record<'name' | 'version' | 'license', string>;
  const locked = (packageLock.packages as Record<string, { version?: string; integrity?: string }>)[path];
  if (locked?.version !== version || !locked.integrity)
    throw new Error(`package-lock.json does not pin "${path}" ${version}. Run "npm ci"`);
  const text = readdirSync(join(root, path)).find((entry) => /^licen[cs]e/i.test(entry));
  if (!text) throw new Error(`"${path}" has no licence to pass on`);
  const { integrity } = locked;
  return { name, version, license, integrity, licenceFile: join(root, path, text) };
}

/** What a tree is made of. */
export interface Materials {
  readonly target: Target;
  /** The npm package with Node.js. */
  readonly nodePackage: string;
  /** The single executable. */
  readonly executable: string;
  /** Its loader and libraries. */
  readonly libraries: readonly string[];
  readonly packages: readonly BundledPackage[];
}

/** Licences of everything in a tree: file names, and where the texts are. */
export function licencesOf({ target, nodePackage, packages }: Materials): Map<string, string> {
  return new Map([
    [packageJson.name, join(root, 'LICENSE')],
    ['node', join(nodePackage, 'LICENSE')],
    ...packages.map(({ name, licenceFile }) => [name.replace('/', '-'), licenceFile] as const),
    ...[...target.debian].map(([name, { licence }]) => [name, licence] as const),
  ]);
}

/** Makes the bill of materials. */
export function sbomOf({ target, nodePackage, executable, libraries, packages }: Materials): Sbom {
  const components = [
    nodeComponent(nodePackage),
    ...packages.map(npmComponent),
    ...debianComponents(target, libraries),
  ];
  const own: Component = {
    type: 'application',
    'bom-ref': packageJson.name,
    name: packageJson.name,
    version: packageJson.version,
    licenses: [{ expression: packageJson.license }],
    components: [fileComponent(executable)],
  };
  const refs = components.map((component) => component['bom-ref']!);
  return {
    bomFormat: 'CycloneDX',
    specVersion: '1.6',
    version: 1,
    metadata: { component: own },
    components,
    dependencies: [{ ref: own['bom-ref']!, dependsOn: refs }, ...refs.map((ref) => ({ ref }))],
  };
}

/** Node.js, with the parts that it includes. */
function nodeComponent(directory: string): Component {
  const { name, version } = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8')) as {
    name: string;
    version: string;
  };
  // All architectures get the same version, which is also the one that runs this build.
  const { node, ...parts } = process.versions;
  if (node !== version) throw new Error(`Node.js ${node} builds with Node.js ${version}. Run "npm ci"`);
  return {
    ...purlOf('npm', name, version),
    type: 'platform',
    name: 'node',
    version,
    cpe: `cpe:2.3:a:nodejs:node.js:${version}:*:*:*:*:*:*:*`,
    licenses: [{ expression: 'MIT' }],
    hashes: [hashOf(pinOf(name).integrity)],
    components: Object.entries(parts)
      .filter(([part, partVersion]) => partVersion && !['modules', 'napi'].includes(part))
      .map(([part, partVersion]) => ({ type: 'library' as const, name: part, version: partVersion! }))
      .sort((a, b) => (a.name < b.name ? -1 : 1)),
  };
}

function npmComponent({ name, version, license, integrity }: BundledPackage): Component {
  return {
    type: 'library',
    ...purlOf('npm', name, version),
    name,
    version,
    licenses: [{ expression: license }],
    hashes: [hashOf(integrity)],
  };
}

function debianComponents(
  { debian, debianArchitecture, loader }: Target,
  libraries: readonly string[],
): Component[] {
  return [...debian].map(([name, { version }]) => ({
    type: 'library',
    ...purlOf('deb/debian', name, version, `?arch=${debianArchitecture}`),
    name,
    ...(version && { version }),
    licenses: [{ license: { name: `see licences/${name}` } }],
    ...(name !== launcherPackage && {
      components: libraries
        .filter((file) => debianPackageOf(basename(file)) === name)
        .map((file) => ({
          ...fileComponent(file),
          ...(basename(file) === loader && { pedigree: { notes: loaderChange } }),
        })),
    }),
  }));
}

function fileComponent(file: string): Component {
  const content = createHash('sha256').update(readFileSync(file)).digest('hex');
  return { type: 'file', name: basename(file), hashes: [{ alg: 'SHA-256', content }] };
}

/** Package URL. Source: https://github.com/package-url/purl-spec */
function purlOf(type: string, name: string, version: string | undefined, qualifiers = '') {
  const encoded = name.split('/').map(encodeURIComponent).join('/');
  const purl = `pkg:${type}/${encoded}${version ? `@${encodeURIComponent(version)}` : ''}${qualifiers}`;
  return { 'bom-ref': purl, purl };
}

/** An npm integrity, which is a hash in base64, in hexadecimal. */
function hashOf(integrity: string): { alg: 'SHA-512'; content: string } {
  return {
    alg: 'SHA-512',
    content: Buffer.from(integrity.replace(/^sha512-/, ''), 'base64').toString('hex'),
  };
}
