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
  const adopt = (from: string, placeOf: (one: Release) => string) =>
    tryTo(() => {
      const files = new AttachmentFiles(from);
      for (const name of files.names())
        tryTo(() => {
          const one = files.read(name);
          if (one?.owner.network !== network) return;
          const to = placeOf(one);
          makeDirectory(to, 0o700);
          renameSync(`${from}/${name}`, `${to}/${name}`);
        });
    });
  tryTo(() => {
    for (const cluster of listStateFiles(stateRoot).filter(isDigest)) {
      adopt(`${stateRoot}/${cluster}`, ({ lists }) => directoryOf(backendOf(lists), network));
      adopt(`${stateRoot}/${cluster}/held`, () => heldDirectoryOf(network));
    }
  });
}

/** Does a step if it can. Another call may do the same at this moment; else the next one tries again. */
function tryTo(step: () => void): void {
  try {
    step();
  } catch {
    // Nothing else waits for it.
  }
}

/** Keys of lists in etcd are paths; what names pools of the Kubernetes API is JSON. */
function backendOf(lists: readonly string[]): 'etcd' | 'kubernetes' {
  return lists.every((list) => list.startsWith('/')) ? 'etcd' : 'kubernetes';
}
