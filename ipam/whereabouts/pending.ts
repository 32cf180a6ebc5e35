/**
 * Releases to be done once the backend can be reached again. A pod can be torn down even before that without
 * losing its addresses: a file for each attachment stays on the node until the next call that reaches it.
 */

import { basename, dirname } from 'node:path';
import { acquireLock, tryAcquireLock } from '../../lib/kernel/lock.ts';
import { listStateFiles } from '../../lib/state-file.ts';
import { AttachmentFiles } from './attachment-files.ts';
import { type Backend, eachInSpite, type Release } from './backend.ts';
import type { Owner } from './keys.ts';
import { directoryOf, heldDirectoryOf } from './state.ts';

/** How long a call goes on beginning pending releases, in milliseconds. The rest is left to the next one. */
const budget = 2000;

/**
 * How long an ADD waits for others, in milliseconds: for {@link budget}, and for the last release begun
 * within it, if that takes no longer than a request to etcd may. If it does, as when others keep changing a
 * pool of the API, the ADD fails, to be tried again.
 */
const longestWait = budget + 12_000;

/** The pending releases of one network on this node. */
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

  /** Forgets the release of an attachment that is added again, which keeps what it has. */
  async cancel(owner: Owner): Promise<void> {
    // A file goes only after its release is done.
    if (!this.files.has(owner)) return;
    using _ = await acquireLock(this.lockFile, longestWait);
    this.files.remove(owner);
  }

  /**
   * The step to take for each of them; none while another call is at it.
   * @param release does it. @returns false for one that must wait longer.
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
 * Leaves an attachment to the next call for its network that reaches the Kubernetes API, by what is written
 * about it on this node. @returns false when nothing is. @throws CniError when it cannot be written.
 */
export function rememberHeld(owner: Owner): boolean {
  const held = new AttachmentFiles(heldDirectoryOf(owner.network)).of(owner);
  if (held) new PendingReleases(directoryOf('kubernetes', owner.network)).remember(held);
  return held !== undefined;
}

/**
 * Carries out pending releases, for some time: all of the backend's network, however its cluster was found at
 * the time, and those of other networks that wait for the same cluster, as there may be no further call for
 * these. One that fails does not hold up the others, unless the backend does not answer.
 * @param warn is told what an operator should know about what is released.
 * @throws the first error, at the end; what failed waits on.
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
  // No warnings: a long backlog may fail for a single reason.
  await eachInSpite(steps(), (step) => step(), { isFinal, warn: () => {} });
}

/** The directories beside that of a network. */
function otherNetworks(path: string): string[] {
  return listStateFiles(dirname(path))
    .filter((name) => name !== basename(path))
    .map((name) => `${dirname(path)}/${name}`);
}

/** A list from a random place on, so that the first ones do not take all the time whenever they fail. */
function rotated<T>(list: readonly T[]): T[] {
  const from = Math.floor(Math.random() * list.length);
  return [...list.slice(from), ...list.slice(0, from)];
}
