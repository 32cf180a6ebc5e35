/**
 * What is to be released once the backend can be asked again. A pod is torn down also while it cannot, and
 * its addresses are not lost: a file for each attachment stays on the node until the next call that can.
 */

import { acquireLock, tryAcquireLock } from '../../lib/kernel/lock.ts';
import { AttachmentFiles } from './attachment-files.ts';
import type { Backend, Release } from './backend.ts';
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
  private readonly backend: Backend;
  private readonly path: string;
  private readonly files: AttachmentFiles;

  constructor(backend: Backend) {
    this.backend = backend;
    this.path = backend.directory;
    this.files = new AttachmentFiles(this.path);
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
   * Does what waits, for some time, unless another call is at it. What cannot be done keeps nothing else
   * waiting, unless the backend does not answer.
   * @throws CniError; then the rest waits on.
   */
  async workOff(): Promise<void> {
    if (this.files.names().length === 0) return;
    using lock = tryAcquireLock(this.lockFile);
    if (!lock) return;
    const end = performance.now() + budget;
    let problem: unknown;
    for (const name of rotated(this.files.names())) {
      if (performance.now() >= end) break;
      try {
        const one = this.files.read(name);
        if (one) await this.backend.release(one);
        this.files.removeNamed(name);
      } catch (error) {
        if (this.backend.isFinal(error)) throw error;
        problem ??= error;
      }
    }
    if (problem) throw problem;
  }

  private get lockFile(): string {
    return `${this.path}/lock`;
  }
}

/** A list from anywhere on, so that the first ones do not take all the time whenever they fail. */
function rotated<T>(list: readonly T[]): T[] {
  const from = Math.floor(Math.random() * list.length);
  return [...list.slice(from), ...list.slice(0, from)];
}
