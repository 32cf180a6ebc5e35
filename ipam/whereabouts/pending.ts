/**
 * What is to be released once etcd answers again. A pod is torn down also while it does not, and its
 * addresses are not lost: a file for each attachment stays on the node until the next call that reaches etcd.
 */

import { createHash } from 'node:crypto';
import type { EtcdClient, EtcdSettings } from '../../lib/etcd/client.ts';
import { acquireLock } from '../../lib/kernel/lock.ts';
import { listStateFiles, readStateFile, unlinkStateFile, writeStateFile } from '../../lib/state-file.ts';
import { type Owner, ownerKey, ownerOf } from './keys.ts';
import { type Release, release } from './release.ts';

const directory = '/var/lib/cni/whereabouts';

/** How long others that do the same are waited for, in milliseconds. */
const longestWait = 5000;

/** The releases of one cluster that wait on this node. */
export class PendingReleases {
  private readonly path: string;

  constructor({ endpoints }: EtcdSettings) {
    this.path = `${directory}/${digest(
      endpoints
        .map(({ origin }) => origin)
        .toSorted()
        .join(),
    )}`;
  }

  /** Remembers a release. @throws CniError when it cannot be written. */
  remember({ owner, quarantine, lists }: Release): void {
    writeStateFile(this.fileOf(owner), JSON.stringify({ owner: ownerKey(owner), quarantine, lists }));
  }

  /** Forgets the release of an attachment that is added anew, and keeps what it has. */
  async cancel(owner: Owner): Promise<void> {
    if (this.names().length === 0) return;
    using _ = await this.lock();
    unlinkStateFile(this.fileOf(owner));
  }

  /**
   * Does what waits.
   * @throws EtcdUnavailableError, CniError; then the rest waits on.
   */
  async workOff(client: EtcdClient): Promise<void> {
    if (this.names().length === 0) return;
    using _ = await this.lock();
    for (const name of this.names()) {
      const one = parse(readStateFile(`${this.path}/${name}`));
      if (one) await release(client, one);
      unlinkStateFile(`${this.path}/${name}`);
    }
  }

  private names(): string[] {
    return listStateFiles(this.path).filter((name) => /^[0-9a-f]{32}$/.test(name));
  }

  private fileOf(owner: Owner): string {
    return `${this.path}/${digest(ownerKey(owner))}`;
  }

  private lock() {
    return acquireLock(`${this.path}/lock`, longestWait);
  }
}

/** Reads a file; undefined for one that makes no sense, of which GC finds the attachment. */
function parse(text: string | undefined): Release | undefined {
  try {
    const { owner: key, quarantine, lists } = JSON.parse(text ?? '') as Record<string, unknown>;
    const owner = typeof key === 'string' ? ownerOf(key) : undefined;
    if (!owner || !Number.isSafeInteger(quarantine) || !Array.isArray(lists)) return undefined;
    const keys = lists.filter((list): list is string => typeof list === 'string');
    return { owner, guess: undefined, quarantine: quarantine as number, lists: keys };
  } catch {
    return undefined;
  }
}

function digest(text: string): string {
  return createHash('sha256').update(text).digest('hex').slice(0, 32);
}
