/** What interfaces were like before they were tuned: one file an attachment, in the reference plugin's format. */

import { readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import type { AttachmentId } from '../../lib/attachment.ts';
import { boolean, decode, type Infer, integer, object, record, string } from '../../lib/cni/schema.ts';
import { makeDirectory } from '../../lib/directory.ts';

const backupSchema = object({
  mac: string(),
  promisc: boolean(),
  mtu: integer(),
  allmulti: boolean(),
  txQLen: integer(),
  /** Ours alone, as is the next one: the reference plugin does not put these back. */
  sysctl: record(string()),
  /** For GC, which is about one network. */
  network: string(),
});

/** Settings of an interface and its sandbox. */
export type Backup = Infer<typeof backupSchema>;

/** The backups of one directory. */
export class Backups {
  private readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  /** Saves a backup. @throws Error when it cannot be written. */
  save(attachment: AttachmentId, backup: Backup): void {
    try {
      makeDirectory(this.directory, 0o700);
      writeFileSync(this.fileOf(attachment), JSON.stringify(backup, null, 1), { mode: 0o600 });
    } catch (error) {
      throw new Error(
        `Cannot save in "${this.directory}" what the interface was like. Make it a writable directory, or set "dataDir"`,
        { cause: error },
      );
    }
  }

  /** Reads a backup. @returns undefined when there is none, or one that a crash tore. */
  load(attachment: AttachmentId): Backup | undefined {
    return readBackup(this.fileOf(attachment));
  }

  remove(attachment: AttachmentId): void {
    rmSync(this.fileOf(attachment), { force: true });
  }

  /** Removes a network's backups but for those of the attachments given. */
  removeOthers(network: string, valid: readonly AttachmentId[]): void {
    const keep = new Set(valid.map((attachment) => this.fileOf(attachment)));
    let files: string[] = [];
    try {
      files = readdirSync(this.directory);
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'ENOENT') throw error;
    }
    for (const name of files) {
      const file = join(this.directory, name);
      if (!keep.has(file) && readBackup(file)?.network === network) rmSync(file, { force: true });
    }
  }

  private fileOf({ containerId, ifname }: AttachmentId): string {
    return join(this.directory, `${containerId}_${ifname}.json`);
  }
}

function readBackup(file: string): Backup | undefined {
  try {
    return decode(backupSchema, JSON.parse(readFileSync(file, 'utf8')));
  } catch {
    return undefined;
  }
}
