/** The networks that this host has or had. */

import {
  findNetworkBelow,
  isLoopback,
  loadNetwork,
  type NetworkList,
  networkFiles,
  networkFromCache,
  readNetworkFile,
} from './libcni/conflist.ts';
import { listRecords } from './records.ts';
import { cacheDir, configDir } from './settings.ts';
import { warn } from './terminal.ts';

/** Finds a network in {@link configDir}, with a warning for each file that cannot be used. */
export function findNetwork(name: string): NetworkList {
  return loadNetwork(configDir(), name, (file, error) => warn(`Skipping "${file}": ${error.message}`));
}

/** Names of the networks in {@link configDir}, with a warning for each file that cannot be used. */
export function configuredNetworks(): string[] {
  return networkFiles(configDir()).flatMap((file) => {
    try {
      return [readNetworkFile(file).name];
    } catch (error) {
      warn(`Skipping "${file}": ${(error as Error).message}`);
      return [];
    }
  });
}

/**
 * As {@link findNetwork}, but a network that was renamed or removed while it has attachments is taken from
 * the result cache.
 */
export function findUsedNetwork(name: string): NetworkList {
  try {
    return findNetwork(name);
  } catch (error) {
    const below = findNetworkBelow(configDir(), name);
    if (below) return below;
    const records = listRecords(cacheDir())
      .filter(({ attachment }) => attachment?.network === name)
      .sort((a, b) => +b.since - +a.since);
    const [newest] = records.flatMap(({ attachment }) => networkFromCache(attachment!) ?? []);
    if (!newest) throw error;
    // Networks that plugins attach pods to, and a runtime's own loopback network, need not be in a file.
    if (!isLoopback(newest) && !records.some(({ isSaved }) => isSaved)) warnOfRemoved(name);
    return newest;
  }
}

/** Warns that the configuration of a network is taken from its records. */
export function warnOfRemoved(name: string): void {
  warn(
    `No configuration in "${configDir()}" has the network "${name}" any more. The one that its last attachment was added with is used`,
  );
}
