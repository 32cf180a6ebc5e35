/**
 * What is to be released once the backend can be asked again. A pod is torn down also while it cannot, and
 * its addresses are not lost: a file for each attachment stays on the node until the next call that can.
 */

import { basename, dirname } from 'node:path';
import { acquireLock, tryAcquireLock } from '../../lib/kernel/lock.ts';
import { listStateFiles } from '../../lib/state-file.ts';
import { AttachmentFiles } from './attachment-files.ts';
import { type Backend, eachInSpite, type Release } from './backend.ts';
import type { Owner } from './keys.ts';

/** How long a call begins releases that wait, in milliseconds. The rest is left to the next one. */
const budget = 2000;

/**
 * How long an ADD waits for others, in milliseconds: for {@link budget}, and the last release that is begun
 * within it, if that takes as long as a request to etcd may. One that tries for longer, as others change a
 * pool of the API at the same time, has the ADD fail, to be tried again.
 */
const longestWait = budget + 12_000;

/** The releases of one network that wait on this node. */
export class PendingReleases {
  private readonly path: string;
  private readonly files: AttachmentFiles;

  /** @param path of their directory. */
  constructor(path: string) {
    this.path = path;
    this.files = new AttachmentFiles(path);
  }

  /** Remembers a release. @throws CniError when it cannot be written. */
  remember(one: Release): void {
    this.files.write(one);
  }

  /** Forgets the release of an attachment that is added anew, and keeps what it has. */
  async cancel(owner: Owner): Promise<void> {
    // A file goes only after its release is done.
    if (!this.files.has(owner)) return;
    using _ = await acquireLock(this.lockFile, longestWait);
    this.files.remove(owner);
  }

  /**
   * What is to be done for each of them; nothing while another call is at it.
   * @param release does it. @returns false for one that is to wait on.
   */
  *steps(release: (one: Release) => Promise<boolean>): Generator<() => Promise<void>> {
    if (this.files.names().length === 0) return;
    using lock = tryAcquireLock(this.lockFile);
    if (!lock) return;
    for (const name of rotated(this.files.names()))
      yield async () => {
        const one = this.files.read(name);
        if (!one || (await release(one))) this.files.removeNamed(name);
      };
  }

  private get lockFile(): string {
    return `${this.path}/lock`;
  }
}

/**
 * Does what waits, for some time: of the backend's network wherever its cluster was found by then, and of
 * others what waits for the same cluster, as there may be no further call for these. What cannot be done
 * keeps nothing else waiting, unless the backend does not answer.
 * @param warn is told what an operator should know of what is released.
 * @throws the first error, at the end; then the rest waits on.
 */
export async function workOff(backend: Backend, warn: (message: string) => void): Promise<void> {
  const end = performance.now() + budget;
  function* steps() {
    for (const path of [backend.directory, ...rotated(otherNetworks(backend.directory))]) {
      const isOwn = path === backend.directory;
      const release = async (one: Release) => {
        if (!isOwn && one.cluster !== backend.cluster) return false;
        await backend.release(one, warn);
        return true;
      };
      for (const step of new PendingReleases(path).steps(release)) {
        if (performance.now() >= end) return;
        yield step;
      }
    }
  }
  const { isFinal } = backend;
  // A long backlog may fail for one reason.
  await eachInSpite(steps(), (step) => step(), { isFinal, warn: () => {} });
}

/** The directories beside that of a network. */
function otherNetworks(path: string): string[] {
  return listStateFiles(dirname(path))
    .filter((name) => name !== basename(path))
    .map((name) => `${dirname(path)}/${name}`);
}

/** A list from anywhere on, so that the first ones do not take all the time whenever they fail. */
function rotated<T>(list: readonly T[]): T[] {
  const from = Math.floor(Math.random() * list.length);
  return [...list.slice(from), ...list.slice(0, from)];
}
