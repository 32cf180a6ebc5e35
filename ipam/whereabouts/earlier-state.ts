/**
 * What earlier releases have kept. Their directories were those of clusters, named by a digest of where these
 * were found, so that nobody looked there any more when that had changed.
 */

import { renameSync } from 'node:fs';
import { makeDirectory } from '../../lib/directory.ts';
import { listStateFiles } from '../../lib/state-file.ts';
import { AttachmentFiles } from './attachment-files.ts';
import type { Release } from './backend.ts';
import { directoryOf, heldDirectoryOf, isDigest, stateRoot } from './state.ts';

/** Takes over what is kept of a network. What cannot be moved stays where it is. */
export function adoptEarlierState(network: string): void {
  try {
    for (const cluster of listStateFiles(stateRoot).filter(isDigest)) {
      adopt(`${stateRoot}/${cluster}`, network, ({ lists }) => directoryOf(backendOf(lists), network));
      adopt(`${stateRoot}/${cluster}/held`, network, () => heldDirectoryOf(network));
    }
  } catch {
    // The next call tries again.
  }
}

function adopt(from: string, network: string, placeOf: (one: Release) => string): void {
  const files = new AttachmentFiles(from);
  for (const name of files.names()) {
    const one = files.read(name);
    if (one?.owner.network !== network) continue;
    const to = placeOf(one);
    makeDirectory(to, 0o700);
    renameSync(`${from}/${name}`, `${to}/${name}`);
  }
}

/** Keys of lists in etcd are paths; what names pools of the Kubernetes API is JSON. */
function backendOf(lists: readonly string[]): 'etcd' | 'kubernetes' {
  return lists.every((list) => list.startsWith('/')) ? 'etcd' : 'kubernetes';
}
