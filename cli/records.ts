/**
 * What is recorded about each attachment: by runtimes in libcni's cache, and by the plugins that attach pods
 * to several networks in files of their own.
 */

import { lstatSync } from 'node:fs';
import { join } from 'node:path';
import { isDeepStrictEqual } from 'node:util';
import { type AttachmentId, attachmentKey } from '../lib/attachment.ts';
import { newestVersion } from '../lib/cni/version.ts';
import { cachedAttachment } from '../lib/networks/delegate-cache.ts';
import { directoriesIn, usualDirectories } from '../lib/networks/directories.ts';
import { type SavedDelegate, SavedDelegates, withIfname } from '../lib/networks/saved.ts';
import { listIfDirectory } from '../lib/state-file.ts';
import { type CachedAttachment, type CacheEntry, listCache, readCached } from './libcni/cache.ts';
import { networkFromCache } from './libcni/conflist.ts';

/** A record, and who wrote it. */
export interface RecordEntry extends CacheEntry {
  /** Whether a plugin that attaches pods to several networks wrote it, rather than a runtime. */
  readonly isSaved: boolean;
}

/** Directories where plugins of a record's network save the additional networks of pods; usually none. */
export function savedBy(record: CachedAttachment): string[] {
  const network = networkFromCache(record);
  return network ? directoriesIn(network) : [];
}

/** Every record, those of libcni first. */
export function listRecords(cacheDir: string): RecordEntry[] {
  const cached = listCache(cacheDir);
  return [
    ...cached.map((one) => ({ ...one, isSaved: false })),
    ...directoriesOf(cacheDir, cached).flatMap(listSaved),
  ];
}

/** Reads one record, undefined when there is none. @throws CacheError when its file is damaged. */
export function readRecord(cacheDir: string, id: AttachmentId): CachedAttachment | undefined {
  const cached = readCached(cacheDir, id);
  if (cached) return cached;
  const isOwn = ({ attachment }: CacheEntry) =>
    attachment !== undefined && attachmentKey(attachment) === attachmentKey(id);
  return directoriesOf(cacheDir, listCache(cacheDir)).flatMap(listSaved).find(isOwn)?.attachment;
}

/** The record as it is now; undefined once the attachment is deleted. */
export function currentRecord(cacheDir: string, record: CachedAttachment): CachedAttachment | undefined {
  try {
    return readRecord(cacheDir, record);
  } catch {
    return record; // It exists, even if it is damaged.
  }
}

/** Whether an attachment is still the one in the record, neither deleted nor added anew. */
export function isCurrent(cacheDir: string, record: CachedAttachment): boolean {
  const current = currentRecord(cacheDir, record);
  return isDeepStrictEqual([current?.netns, current?.result], [record.netns, record.result]);
}

/** Where plugins save the networks of containers: the usual places, and those that recorded networks name. */
function directoriesOf(cacheDir: string, cached: readonly CacheEntry[]): string[] {
  const configured = cached.flatMap(({ attachment }) => {
    return attachment ? savedBy(attachment) : [];
  });
  return [...new Set([...usualDirectories(cacheDir), ...configured])];
}

function listSaved(directory: string): RecordEntry[] {
  const saved = new SavedDelegates(directory);
  return saved.containers(listIfDirectory).flatMap((containerId): RecordEntry[] => {
    const file = join(directory, containerId);
    const since = lstatSync(file, { throwIfNoEntry: false })?.mtime ?? new Date(0);
    const entry = { file, since, isSaved: true };
    try {
      const networks = saved.read(containerId) ?? [];
      return networks.map((one) => ({ ...entry, attachment: recordOf(containerId, one) }));
    } catch (error) {
      const why = `The saved networks of a container, "${file}", cannot be read: ${(error as Error).message}. Delete the container, and add it again`;
      return [{ ...entry, error: new Error(why) }];
    }
  });
}

/** The networks of a container, and where they are saved; undefined if nobody saved any. */
export function savedNetworksOf(
  cacheDir: string,
  containerId: string,
): { saved: SavedDelegates; networks: SavedDelegate[] } | undefined {
  for (const directory of directoriesOf(cacheDir, listCache(cacheDir))) {
    const saved = new SavedDelegates(directory);
    const networks = saved.read(containerId);
    if (networks?.length) return { saved, networks };
  }
  return undefined;
}

/**
 * Forgets a network that a plugin saved for a container, after the container was detached from it.
 * @throws CniError when what is saved for the container cannot be read or written.
 */
export function forgetSaved(cacheDir: string, { network, containerId, ifname }: AttachmentId): void {
  const isMeant = (one: SavedDelegate) => one.network.name === network && one.ifname === ifname;
  for (const directory of directoriesOf(cacheDir, listCache(cacheDir))) {
    const saved = new SavedDelegates(directory);
    if (!saved.containers(listIfDirectory).includes(containerId)) continue;
    const one = saved.readUsable(containerId).find(isMeant);
    if (!one?.of) continue;
    const others = saved.load(one.of)!.filter((other) => !isMeant(other));
    saved.save(one.of, one.netns, others);
  }
}

/** A saved network as libcni would record it. */
export function recordOf(containerId: string, one: SavedDelegate): CachedAttachment {
  return cachedAttachment(containerId, withIfname(one, one.of?.ifname ?? ''), newestVersion);
}
