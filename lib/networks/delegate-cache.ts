/**
 * The result cache that Multus keeps beside what is saved of a container's delegates, from which it passes
 * "prevResult" to DEL. It is kept up to date, so that a node can go back to Multus with pods running.
 */

import { basename, join, resolve } from 'node:path';
import { formatResult } from '../cni/result.ts';
import { isNetnsGone } from '../kernel/netns.ts';
import { listIfDirectory, removeUnfinished, unlinkStateFile, writeStateFile } from '../state-file.ts';
import {
  type CachedAttachment,
  cacheFile,
  fromFile,
  readCached,
  readCacheFile,
  resultsIn,
  toFile,
} from './attachment-cache.ts';
import type { Delegate } from './delegates.ts';
import { usualStateDir } from './directories.ts';
import { recordedResult } from './plugin-config.ts';

/** What a delegate is known by. */
type Key = Pick<Delegate, 'network' | 'ifname'>;

/** The cached delegates of one directory. */
export class DelegateCache {
  private readonly directory: string;

  constructor(directory: string) {
    this.directory = directory;
  }

  /** What is cached for a delegate. What is damaged or missing counts as unknown. */
  read(containerId: string, { network, ifname }: Key) {
    const nothing = { netns: '', args: '', capabilityArgs: {}, defaultRoute: undefined, result: undefined };
    try {
      const cached = readCached(this.directory, idOf(containerId, { network, ifname }));
      if (!cached) return nothing;
      const { netns, capabilityArgs, args, result } = cached;
      return {
        ...{ ...nothing, netns, capabilityArgs },
        args: args.map((pair) => pair.join('=')).join(';'),
        result: result && recordedResult(result, network),
      };
    } catch {
      return nothing;
    }
  }

  /**
   * Caches the results of delegates, as far as there are any. @param netns the container's.
   * @throws CniError when one cannot be written.
   */
  write(containerId: string, netns: string, delegates: readonly Delegate[]): void {
    for (const one of delegates) {
      if (!one.result || one.isRefused) continue;
      const attachment = cachedAttachment(containerId, { ...one, netns }, one.network.cniVersion);
      writeStateFile(cacheFile(this.directory, attachment), toFile(attachment));
    }
  }

  /** Forgets delegates. @throws CniError when one cannot be removed. */
  remove(containerId: string, delegates: readonly Key[]): void {
    if (delegates.length === 0) return;
    const files = delegates.map((one) => cacheFile(this.directory, idOf(containerId, one)));
    for (const file of files) unlinkStateFile(file);
    const names = new Set(files.map((file) => basename(file)));
    removeUnfinished(resultsIn(this.directory), (name) => names.has(name));
  }

  /**
   * Removes what is cached of containers that are gone, because what was saved of them was lost, and
   * unfinished files that killed processes have left.
   * @param isKnown whether a container may exist, or be detached later.
   * @throws CniError when the directory cannot be listed, or a file cannot be removed.
   */
  collect(isKnown: (containerId: string) => boolean): void {
    const results = resultsIn(this.directory);
    // A runtime's own cache, if multus is told to save there.
    if (resolve(results) === resultsIn(usualStateDir)) return;
    removeUnfinished(results);
    for (const name of listIfDirectory(results)) {
      const file = join(results, name);
      const cached = readable(file);
      if (cached && !isKnown(cached.containerId) && isNetnsGone(cached.netns)) unlinkStateFile(file);
    }
  }
}

/** An attachment, if the file can be read. */
function readable(file: string): CachedAttachment | undefined {
  try {
    const value = readCacheFile(file);
    return value && fromFile(value);
  } catch {
    return undefined;
  }
}

/**
 * A delegate as libcni caches it.
 * @param one what is known of it, with the path of its sandbox's namespace.
 * @param version of the result.
 */
export function cachedAttachment(
  containerId: string,
  one: Delegate & { readonly netns: string },
  version: string,
): CachedAttachment {
  const { network, args, capabilityArgs, result, netns } = one;
  return {
    ...idOf(containerId, one),
    ...{ netns, capabilityArgs, config: network.bytes },
    args: args.split(';').flatMap((pair): [string, string][] => {
      const [name = '', value = ''] = pair.split('=');
      return name === '' ? [] : [[name, value]];
    }),
    result: result && JSON.parse(formatResult(result, version)),
  };
}

/** The kubelet has the first interface of every pod named "eth0". */
function idOf(containerId: string, { network, ifname }: Key) {
  return { containerId, network: network.name, ifname: ifname || 'eth0' };
}
