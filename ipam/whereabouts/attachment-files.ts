/** Files that say how to release attachments, one for each. */

import { existsSync } from 'node:fs';
import { listStateFiles, readStateFile, unlinkStateFile, writeStateFile } from '../../lib/state-file.ts';
import type { Release } from './backend.ts';
import { formatHolding, type Owner, ownerKey, ownerOf, parseHolding } from './keys.ts';
import { digest, isDigest } from './state.ts';

/** The files of a directory. */
export class AttachmentFiles {
  private readonly path: string;

  constructor(path: string) {
    this.path = path;
  }

  /** @throws CniError when it cannot be written. */
  write({ owner, guess, ...rest }: Release): void {
    const holding = guess && formatHolding(guess);
    writeStateFile(this.fileOf(owner), JSON.stringify({ owner: ownerKey(owner), holding, ...rest }));
  }

  has(owner: Owner): boolean {
    return existsSync(this.fileOf(owner));
  }

  names(): string[] {
    return listStateFiles(this.path).filter(isDigest);
  }

  /** Reads a file; undefined for an invalid one, whose attachment GC finds. */
  read(name: string): Release | undefined {
    return parse(readStateFile(`${this.path}/${name}`));
  }

  /** What is written about an attachment, if anything. */
  of(owner: Owner): Release | undefined {
    return parse(readStateFile(this.fileOf(owner)));
  }

  remove(owner: Owner): void {
    unlinkStateFile(this.fileOf(owner));
  }

  removeNamed(name: string): void {
    unlinkStateFile(`${this.path}/${name}`);
  }

  private fileOf(owner: Owner): string {
    return `${this.path}/${digest(ownerKey(owner))}`;
  }
}

function parse(text: string | undefined): Release | undefined {
  try {
    const {
      owner: key,
      holding,
      quarantine,
      lists,
      cluster,
    } = JSON.parse(text ?? '') as Record<string, unknown>;
    const owner = typeof key === 'string' ? ownerOf(key) : undefined;
    if (!owner || !Number.isSafeInteger(quarantine) || !Array.isArray(lists)) return undefined;
    const keys = lists.filter((list): list is string => typeof list === 'string');
    const guess = typeof holding === 'string' ? parseHolding(holding) : undefined;
    return {
      ...{ owner, guess, quarantine: quarantine as number, lists: keys },
      cluster: typeof cluster === 'string' ? cluster : undefined,
    };
  } catch {
    return undefined;
  }
}
