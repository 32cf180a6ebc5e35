/** What interfaces were like before tuning: one file per attachment, in the reference plugin's format. */

import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import type { AttachmentId } from '../../lib/attachment.ts';
import { boolean, decode, type Infer, integer, object, record, string } from '../../lib/cni/schema.ts';
import { CniError, ErrorCode } from '../../lib/errors.ts';
import { bootId, isEarlierBoot } from '../../lib/kernel/boot.ts';
import { parseMac } from '../../lib/kernel/mac.ts';
import {
  isTorn,
  listStateFiles,
  readStateFile,
  removeStateFile,
  removeUnfinished,
  unlinkStateFile,
  writeStateFile,
} from '../../lib/state-file.ts';

const backupSchema = object({
  mac: string(),
  promisc: boolean(),
  mtu: integer(),
  allmulti: boolean(),
  txQLen: integer(),
  /** Ours alone, as are the next two: the reference plugin does not restore kernel settings. */
  sysctl: record(string()),
  /** For GC, which is about one network. */
  network: string(),
  /** The boot of the host in which it was made: with "dataDir" on disk, it may outlive the interface. */
  boot: string(),
});

/** Settings of an interface and its sandbox. */
export type Backup = Infer<typeof backupSchema>;

/** Names of backups. */
const backupName = /^[0-9A-Za-z][\w.-]*_[^/\s]{1,15}\.json$/;
/**
 * Age in milliseconds from which a torn file is no longer being written: the reference plugin does not
 * replace files atomically.
 */
const settledMs = 60_000;

/** The backups of one directory. */
export class Backups {
  private readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  /** Saves a backup. @throws CniError IOFailure when it cannot be written. */
  save(attachment: AttachmentId, backup: Omit<Backup, 'boot'>): void {
    try {
      writeStateFile(this.fileOf(attachment), JSON.stringify({ ...backup, boot: bootId() }, null, 1));
    } catch (error) {
      throw new CniError(
        ErrorCode.IOFailure,
        `Cannot save in "${this.directory}" what the interface was like. Make it a writable directory with space left, or set "dataDir"`,
        (error as Error).message,
      );
    }
  }

  /** Reads a backup. @returns undefined when there is none for an interface that can still exist. */
  load(attachment: AttachmentId): Backup | undefined {
    return load(this.fileOf(attachment));
  }

  /**
   * The original values of kernel settings as other attachments of the sandbox saved them, except for
   * settings of their own interface.
   * @returns values by the name in the configuration; none when the directory cannot be listed.
   */
  sysctlsOfOthers(attachment: AttachmentId): Map<string, string> {
    const own = this.fileOf(attachment);
    const found = this.filesOfSandbox(attachment).flatMap((file) =>
      file === own ? [] : Object.entries(load(file)?.sysctl ?? {}),
    );
    return new Map(found.filter(([name]) => !name.split(/[./]/).includes('IFNAME')));
  }

  remove(attachment: AttachmentId): void {
    removeStateFile(this.fileOf(attachment));
  }

  /**
   * Removes a network's backups except for those of the given attachments. Backups that nobody can use are
   * removed, too, whatever network they were for: those made before the host was booted, and torn ones, which
   * do not say whose they are, once they are a minute old.
   * @param warn is told of files that cannot be read, which stay.
   */
  removeOthers(network: string, valid: readonly AttachmentId[], warn: (message: string) => void): void {
    const keep = new Set(valid.map((attachment) => this.fileOf(attachment)));
    for (const name of this.names()) {
      const file = join(this.directory, name);
      if (keep.has(file)) continue;
      const text = read(file, warn);
      if (text === undefined) continue;
      const backup = parse(text);
      if (backup?.network === network || isEarlierBoot(backup?.boot) || (isTorn(text) && isSettled(file)))
        unlinkStateFile(file);
    }
    removeUnfinished(this.directory, (name) => backupName.test(name));
  }

  private names(): string[] {
    return listStateFiles(this.directory).filter((name) => backupName.test(name));
  }

  private filesOfSandbox({ containerId }: AttachmentId): string[] {
    try {
      const names = this.names().filter((name) => name.startsWith(`${containerId}_`));
      return names.map((name) => join(this.directory, name));
    } catch {
      return [];
    }
  }

  private fileOf({ containerId, ifname }: AttachmentId): string {
    return join(this.directory, `${containerId}_${ifname}.json`);
  }
}

/** @returns undefined when there is no backup for an interface that can still exist. */
function load(file: string): Backup | undefined {
  const text = read(file);
  const backup = text === undefined ? undefined : parse(text);
  return isEarlierBoot(backup?.boot) ? undefined : backup;
}

/**
 * @param warn is told of a file that exists but cannot be read.
 * @returns undefined for what is not a file of ours, such as a link.
 */
function read(file: string, warn: (message: string) => void = () => {}): string | undefined {
  try {
    return readStateFile(file);
  } catch (error) {
    warn((error as Error).message);
    return undefined;
  }
}

function parse(text: string): Backup | undefined {
  try {
    const { mac, ...others } = decode(backupSchema, JSON.parse(text));
    return { ...others, ...(mac && parseMac(mac) && { mac }) };
  } catch {
    return undefined;
  }
}

function isSettled(file: string): boolean {
  try {
    // A time in the future dates from before the clock was set back.
    return Math.abs(Date.now() - lstatSync(file).mtimeMs) > settledMs;
  } catch {
    return false;
  }
}
