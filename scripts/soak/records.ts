/** The records of pods in libcni's cache, as runtimes keep them from ADD to DEL. */

import { defaultCacheDir, readCached, removeCached, writeCached } from '../../cli/libcni/cache.ts';
import type { AttachmentId } from '../../lib/attachment.ts';
import type { PrintedResult } from '../../test/support/plugin.ts';
import type { Pod } from './pod.ts';

/** @param result of its ADD. */
export function writeRecord(pod: Pod, result: PrintedResult): void {
  writeCached(defaultCacheDir, {
    ...idOf(pod),
    config: Buffer.from(JSON.stringify(pod.network.conflist)),
    netns: pod.netns,
    args: [],
    capabilityArgs: pod.capabilities,
    result: { ...result },
  });
}

/** The result of its ADD, unless that was lost. */
export function recordedResult(pod: Pod): PrintedResult | undefined {
  return readCached(defaultCacheDir, idOf(pod))?.result as PrintedResult | undefined;
}

export function removeRecord(pod: Pod): void {
  removeCached(defaultCacheDir, idOf(pod));
}

function idOf({ network, containerId, ifname }: Pod): AttachmentId {
  return { network: network.conflist.name, containerId, ifname };
}
