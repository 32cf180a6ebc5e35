/** The directory beside the plugins that holds the executable, its loader and its libraries. */

import {
  chmodSync,
  chownSync,
  closeSync,
  constants,
  copyFileSync,
  existsSync,
  fsyncSync,
  mkdirSync,
  openSync,
  readdirSync,
  readSync,
  renameSync,
  rmSync,
  statSync,
} from 'node:fs';
import { basename, dirname, join, relative } from 'node:path';
import { privatePrefix } from '../../launcher/launch.ts';
import { CommandError } from '../errors.ts';

/**
 * The private directory that this process runs from.
 * @throws CommandError when it was not started by the launcher.
 */
export function ownPrivateDirectory(): string {
  // What the kernel started is the loader in that directory.
  const directory = dirname(process.execPath);
  if (basename(directory).startsWith(privatePrefix)) return directory;
  throw new CommandError(
    'Only the built executables can be installed. Run "npm run build", then dist/bin/cni',
  );
}

/**
 * Copies a private directory, so that this process owns the copy; see {@link copyFile}.
 * @param to must not exist.
 */
export function copyPrivateDirectory(from: string, to: string): void {
  mkdirSync(to);
  chmodSync(to, 0o755);
  for (const entry of readdirSync(from, { withFileTypes: true }))
    (entry.isDirectory() ? copyPrivateDirectory : copyFile)(join(from, entry.name), join(to, entry.name));
}

/**
 * Copies a file. The copy belongs to the user of this process and can be changed by nobody else, whoever
 * owns the original. A hard link would still be theirs.
 */
export function copyFile(from: string, to: string): void {
  copyFileSync(from, to, constants.COPYFILE_FICLONE);
  // Up to here, it may have the owner and the mode of the original.
  chownSync(to, process.geteuid!(), process.getegid!());
  chmodSync(to, statSync(to).mode & 0o100 ? 0o755 : 0o644);
}

/**
 * Flushes the files of a directory to disk, so that a power failure after they are renamed leaves none of
 * them empty.
 */
export function syncFiles(directory: string): void {
  const entries = readdirSync(directory, { recursive: true, withFileTypes: true });
  for (const entry of entries.filter((one) => one.isFile() || one.isDirectory())) {
    const fd = openSync(join(entry.parentPath, entry.name), 'r');
    try {
      fsyncSync(fd);
    } finally {
      closeSync(fd);
    }
  }
}

/** How much of two files is compared at once, in bytes. */
const comparedAtOnce = 1024 * 1024;

/**
 * Moves a prepared private directory to its place. If one is there already, it has the same content, or is
 * broken.
 */
export function placePrivateDirectory(staged: string, binDir: string): void {
  const target = join(binDir, basename(staged));
  if (existsSync(target)) {
    // Calls may be about to start from it: it stays if it is whole.
    if (isWhole(target, staged)) return;
    renameSync(target, `${staged}.replaced`);
  }
  renameSync(staged, target);
}

/**
 * True when a directory has every file of another, with the same content, owner and mode: a power failure may
 * have left blocks of zeros where it was unpacked by other means.
 */
function isWhole(directory: string, model: string): boolean {
  return readdirSync(model, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name))
    .every((file) => {
      const installed = join(directory, relative(model, file));
      const own = statSync(installed, { throwIfNoEntry: false });
      const wanted = statSync(file);
      const isLike = (['size', 'uid', 'mode'] as const).every((key) => own?.[key] === wanted[key]);
      return isLike && hasSameContent(installed, file);
    });
}

/** Compares two files; one that cannot be read is like no other. */
function hasSameContent(one: string, other: string): boolean {
  const opened: number[] = [];
  try {
    for (const file of [one, other]) opened.push(openSync(file, 'r'));
    const [mine, theirs] = [Buffer.alloc(comparedAtOnce), Buffer.alloc(comparedAtOnce)];
    for (;;) {
      const length = readSync(opened[0]!, mine);
      if (readSync(opened[1]!, theirs) !== length) return false;
      if (mine.compare(theirs, 0, length, 0, length) !== 0) return false;
      if (length === 0) return true;
    }
  } catch {
    return false;
  } finally {
    for (const fd of opened) closeSync(fd);
  }
}

/**
 * Removes private directories that nothing needs any longer.
 * @param needed names of those to keep.
 * @param sparesNewest keeps the newest of the others too, as calls under way may be about to start from it.
 */
export function removeOldPrivateDirectories(
  binDir: string,
  needed: readonly string[],
  { sparesNewest }: { sparesNewest: boolean },
): void {
  const changedAt = (directory: string) => statSync(directory, { throwIfNoEntry: false })?.ctimeMs ?? 0;
  const others = readdirSync(binDir)
    .filter((name) => name.startsWith(privatePrefix) && !needed.includes(name))
    .map((name) => join(binDir, name))
    .sort((a, b) => changedAt(b) - changedAt(a));
  for (const directory of others.slice(sparesNewest ? 1 : 0))
    rmSync(directory, { recursive: true, force: true });
}
