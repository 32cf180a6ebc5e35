/** Where the plugins that attach pods to several networks save the networks of each container. */

import { join } from 'node:path';
import type { NetworkList } from './conflist.ts';

const plugins = ['multus', 'genie'] as const;
/** Where CNI keeps its state. */
const usualStateDir = '/var/lib/cni';

/** The directory of a plugin unless "cniDir" says otherwise. */
export function usualDirectory(plugin: (typeof plugins)[number]): string {
  return join(usualStateDir, plugin);
}

/** The directories of all of them. @param stateDir where CNI keeps its state. */
export function usualDirectories(stateDir = usualStateDir): string[] {
  return plugins.map((name) => join(stateDir, name));
}

/** The directories that a network names; none for a network of other plugins. */
export function directoriesIn(network: Pick<NetworkList, 'plugins'>): string[] {
  return network.plugins.flatMap(({ type, config: { cniDir } }) => {
    const plugin = plugins.find((name) => name === type);
    if (!plugin) return [];
    return [typeof cniDir === 'string' && cniDir !== '' ? cniDir : usualDirectory(plugin)];
  });
}
