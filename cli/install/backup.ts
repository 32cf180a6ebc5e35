/**
 * What installations replaced, kept in a hidden directory beside the plugins:
 *
 *     DIR/.cni-backup/original/NAME          another suite's first file under that name, for --uninstall
 *     DIR/.cni-backup/previous/NAME          what the last installation replaced, for --rollback
 *     DIR/.cni-backup/previous/NAME.absent   there was nothing under that name
 *
 * Each is a hard link to the file that was there. Everything that an installation will replace is put there
 * before it replaces anything. Entries are taken out by renaming, one by one, so that the next call finishes
 * what a killed one began.
 */

import {
  copyFileSync,
  existsSync,
  linkSync,
  mkdirSync,
  readdirSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs';
import { join } from 'node:path';
import { errnoOf } from '../../lib/file.ts';
import { type Identity, identify, privateDirectoryOf } from './identity.ts';
import { syncFiles } from './private-directory.ts';

/** Not named like a private directory, as earlier versions of this suite would remove it. */
const backupName = '.cni-backup';
const absent = '.absent';

/** The backup of one directory of plugins. */
export class Backup {
  readonly directory: string;
  private readonly binDir: string;
  private readonly original: string;
  private readonly previous: string;

  /** @param binDir directory of the plugins. */
  constructor(binDir: string) {
    this.binDir = binDir;
    this.directory = join(binDir, backupName);
    this.original = join(this.directory, 'original');
    this.previous = join(this.directory, 'previous');
  }

  /**
   * Keeps what is there, before it is replaced. Files of the build that is being installed are left out:
   * they are from an installation that was interrupted, or the same build is being installed again.
   * @param found what there is under each name that is installed.
   * @param build name of the private directory of what is being installed.
   * @param staging a directory on the same file system.
   */
  save(found: ReadonlyMap<string, Identity | undefined>, build: string, staging: string): void {
    const replaced = [...found].filter(([name]) => privateDirectoryOf(join(this.binDir, name)) !== build);
    const hasSome = replaced.some(([, identity]) => identity) || existsSync(this.directory);
    if (replaced.length === 0 || !hasSome) return;
    const isContinued = replaced.length < found.size && this.canRollBack;
    const ready = join(staging, 'backup');
    const previous = isContinued ? this.previous : join(staging, 'previous');
    for (const directory of [ready, this.directory, this.original, previous])
      mkdirSync(directory, { recursive: true, mode: 0o755 });
    let isCopied = false;
    const keep = (name: string) => {
      const file = join(ready, name);
      rmSync(file, { force: true });
      if (linkOrCopy(join(this.binDir, name), file) === 'copied') isCopied = true;
      return file;
    };
    for (const [name, identity] of replaced) {
      const [entry, none] = [join(previous, name), join(previous, name + absent)];
      if (!identity) {
        // Missing since this build was first installed: what was there before that counts.
        if (isContinued && existsInDirectory(previous, name)) continue;
        writeFileSync(none, '');
        rmSync(entry, { force: true });
        continue;
      }
      renameSync(keep(name), entry);
      rmSync(none, { force: true });
      if (!identity.isOurs && !existsInDirectory(this.original, name))
        renameSync(keep(name), join(this.original, name));
    }
    if (!isContinued) {
      // As a whole: rolling back to a part of this and a part of the backup before would mix two versions.
      if (this.canRollBack) moveAway(this.previous, `${previous}.replaced`);
      renameSync(previous, this.previous);
    }
    if (isCopied) syncFiles(this.directory);
  }

  /** True when there is something that {@link rollBack} has not put back yet. */
  get canRollBack(): boolean {
    return existsSync(this.previous);
  }

  /** Private directories that a rollback needs but that are gone. */
  missingPrivateDirectories(): string[] {
    const needed = entries(this.previous).map((name) => privateDirectoryOf(join(this.previous, name)));
    return [...new Set(needed)].filter(
      (name): name is string => name !== undefined && !existsSync(join(this.binDir, name, 'cni-plugins')),
    );
  }

  /**
   * Puts back what the last installation replaced, and removes what it added. What somebody else has put
   * there since is kept.
   */
  rollBack(): Changes {
    const changes = new Changes();
    for (const entry of entries(this.previous)) {
      const name = entry.endsWith(absent) ? entry.slice(0, -absent.length) : entry;
      const file = join(this.binDir, name);
      const current = identify(file, name);
      if (current && !current.isOurs) changes.kept.set(name, current.description);
      else if (name !== entry) {
        if (current) changes.removed.push(name);
        rmSync(file, { force: true });
      } else {
        renameSync(join(this.previous, entry), file);
        changes.restored.set(name, identify(file, name)?.description ?? '-');
      }
      rmSync(join(this.previous, entry), { force: true });
    }
    rmSync(this.previous, { recursive: true, force: true });
    // Where another suite's file is back in place, --uninstall needs no copy of it.
    for (const name of entries(this.original))
      if (identify(join(this.binDir, name), name)?.isOurs !== true) rmSync(join(this.original, name));
    if (entries(this.original).length === 0) this.discard();
    return changes;
  }

  /** Removes this suite's executables, and puts back what was there before the first of its installations. */
  restoreOriginals(names: readonly string[]): Changes {
    const changes = new Changes();
    for (const name of new Set([...names, ...entries(this.original)])) {
      const file = join(this.binDir, name);
      const current = identify(file, name);
      if (current && !current.isOurs) changes.kept.set(name, current.description);
      else if (existsInDirectory(this.original, name)) {
        renameSync(join(this.original, name), file);
        changes.restored.set(name, identify(file, name)?.description ?? '-');
      } else if (current) {
        rmSync(file);
        changes.removed.push(name);
      }
    }
    this.discard();
    return changes;
  }

  /** Private directories that entries of the backup start from. */
  neededPrivateDirectories(): string[] {
    return entries(this.previous).flatMap((name) => privateDirectoryOf(join(this.previous, name)) ?? []);
  }

  private discard(): void {
    rmSync(this.directory, { recursive: true, force: true });
  }
}

/** What became of the executables of a directory. */
export class Changes {
  /** What each of those put back is now, by name. */
  readonly restored = new Map<string, string>();
  readonly removed: string[] = [];
  /** Another suite's executables, and what they are, by name. */
  readonly kept = new Map<string, string>();
}

/** Makes a hard link, or a copy where that is not possible. @returns which. */
function linkOrCopy(from: string, to: string): 'linked' | 'copied' {
  try {
    linkSync(from, to);
    return 'linked';
  } catch {
    copyFileSync(from, to);
    return 'copied';
  }
}

/** Moves a directory out of the way; removes one in a lower layer of an overlayfs, which cannot be moved. */
function moveAway(from: string, to: string): void {
  try {
    renameSync(from, to);
  } catch (error) {
    if (errnoOf(error) !== 'EXDEV') throw error;
    rmSync(from, { recursive: true });
  }
}

function entries(directory: string): string[] {
  return existsSync(directory) ? readdirSync(directory).sort() : [];
}

/** Unlike existsSync, also true for a dangling symbolic link. */
function existsInDirectory(directory: string, name: string): boolean {
  return entries(directory).includes(name);
}
