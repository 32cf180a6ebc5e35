/**
 * The tree that is installed: the launcher under every name, and beside it a private directory with the
 * executable, its loader and its libraries. The directory is named after the digest of its content, so that
 * an upgrade never changes a file that a running call uses.
 */

import { createHash } from 'node:crypto';
import {
  chmodSync,
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  writeFileSync,
} from 'node:fs';
import { basename, join } from 'node:path';
import { privatePrefix } from '../../launcher/launch.ts';
import { inspectTree, readElf } from './inspect.ts';
import { compileLauncher, launcherFiles } from './launcher.ts';
import { copyLoader } from './loader-copy.ts';
import { licencesOf, type Materials, sbomFile, sbomOf } from './sbom.ts';
import type { Target } from './target.ts';

const root = join(import.meta.dirname, '../..');
/** The agent's units, which `cni install --agent` puts in place. */
const units = ['cni-agent.service', 'cni-agent.socket'].map((name) => join(root, 'conf/systemd', name));

/**
 * Lays the tree out.
 * @param parts what it is made of: the single executable, and what is in it.
 * @param directory where the names go. @param names under which the executable can be started.
 * @param work directory for intermediate files.
 * @throws Error that says what the building machine lacks, or what is wrong with the tree.
 */
export function layTree(
  parts: Omit<Materials, 'libraries'>,
  directory: string,
  names: readonly string[],
  work: string,
): void {
  const { target, executable } = parts;
  const materials = { ...parts, libraries: runtimeFiles(target, executable, work) };
  const files = [executable, ...materials.libraries];
  const sbom = `${JSON.stringify(sbomOf(materials), null, 2)}\n`;
  const licences = licencesOf(materials);
  const digest = createHash('sha256').update(sbom);
  for (const file of [...launcherFiles, ...files, ...units, ...licences.values()])
    digest.update(readFileSync(file));
  const build = digest.digest('hex').slice(0, 12);
  const launcher = compileLauncher(target, build, work);

  mkdirSync(directory, { recursive: true });
  const hidden = `${privatePrefix}${build}`;
  placePrivate(files, licences, sbom, join(directory, hidden));
  for (const name of names) placeLink(launcher, join(directory, name));
  for (const entry of readdirSync(directory))
    if (entry !== hidden && !names.includes(entry)) rmSync(join(directory, entry), { recursive: true });
  inspectTree(target, directory, hidden, names);
}

/** The loader, and every library that the executable needs, directly or through another. */
function runtimeFiles(target: Target, executable: string, work: string): string[] {
  const found = new Map([[target.loader, copyLoader(findLibrary(target, target.loader), work)]]);
  const visit = (file: string) => {
    for (const name of readElf(file).needed) {
      if (found.has(name)) continue;
      const path = findLibrary(target, name);
      found.set(name, path);
      visit(path);
    }
  };
  visit(executable);
  return [...found.values()];
}

function findLibrary({ libraries }: Target, name: string): string {
  const path = libraries.map((directory) => join(directory, name)).find((file) => existsSync(file));
  if (path) return path;
  throw new Error(
    `"${name}", which the executable needs, is in none of ${libraries.join(', ')}. Install the Debian package that has it`,
  );
}

/** Puts the executable, what it needs and what belongs to it into a directory that appears as a whole. */
function placePrivate(
  files: readonly string[],
  licences: ReadonlyMap<string, string>,
  sbom: string,
  directory: string,
): void {
  if (existsSync(directory)) return;
  const staging = `${directory}.new`;
  rmSync(staging, { recursive: true, force: true });
  for (const part of ['licences', 'systemd']) mkdirSync(join(staging, part), { recursive: true });
  const [executable, ...libraries] = files as [string, ...string[]];
  linkSync(executable, join(staging, 'cni-plugins'));
  for (const library of libraries) {
    const copy = join(staging, basename(library));
    copyFileSync(library, copy);
    chmodSync(copy, 0o755);
  }
  for (const [name, text] of licences) {
    const copy = join(staging, 'licences', name);
    copyFileSync(text, copy);
    chmodSync(copy, 0o644);
  }
  writeFileSync(join(staging, sbomFile), sbom);
  for (const unit of units) copyFileSync(unit, join(staging, 'systemd', basename(unit)));
  renameSync(staging, directory);
}

/** Makes a name a hard link to the launcher, in one step. */
function placeLink(launcher: string, link: string): void {
  // Renaming one link over another of the same file does nothing.
  if (statSync(link, { throwIfNoEntry: false })?.ino === statSync(launcher).ino) return;
  rmSync(`${link}.new`, { force: true });
  linkSync(launcher, `${link}.new`);
  renameSync(`${link}.new`, link);
}
