/** What a host finds of earlier boots when it starts: reservations of containers that no longer exist. */

import { readdirSync } from 'node:fs';
import { isValidName } from '../../lib/cni/invocation.ts';
import { errnoOf } from '../../lib/file.ts';
import { Store } from './store.ts';

/**
 * Releases what was reserved before the host was last booted, on every network where that is certain; see
 * owner-index.ts.
 * @param dataDir root of all networks' directories.
 * @param warn told of what cannot be released now; the next ADD or GC releases it.
 */
export async function releaseEarlierBoots(dataDir: string, warn: (message: string) => void): Promise<void> {
  for (const network of networksWithIndex(dataDir, warn)) {
    try {
      using store = await Store.openIfPresent({ dataDir, network, warn });
      store?.releaseEarlierBoots();
    } catch (error) {
      warn((error as Error).message);
    }
  }
}

function networksWithIndex(dataDir: string, warn: (message: string) => void): string[] {
  try {
    return readdirSync(`${dataDir}/.owners`).filter(isValidName);
  } catch (error) {
    if (errnoOf(error) !== 'ENOENT') warn((error as Error).message);
    return [];
  }
}
