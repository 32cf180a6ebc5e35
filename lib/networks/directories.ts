/**
 * Where networks are: the files of those that are available, and what the plugins that attach pods to several
 * networks save for each container.
 */

import { join } from 'node:path';
import { getKey } from '../cni/schema.ts';
import type { NetworkList } from './conflist.ts';

const plugins = ['multus', 'genie'] as const;
/** Where runtimes look for networks. */
export const runtimeNetworks = '/etc/cni/net.d';
/** Where multus looks for them unless "confDir" says otherwise, in this order. */
export const multusNetworks = ['/etc/cni/multus/net.d', runtimeNetworks];
/** Where CNI keeps its state. */
export const usualStateDir = '/var/lib/cni';

/** The directory of a plugin unless "cniDir" says otherwise. */
export function usualDirectory(plugin: (typeof plugins)[number]): string {
  return join(usualStateDir, plugin);
}

/** Where a plugin saves its state. @param cniDir as the configuration has it. */
export function directoryOf(plugin: (typeof plugins)[number], cniDir: string): string {
  return cniDir || usualDirectory(plugin);
}

/** The usual directories of all these plugins. @param stateDir where CNI keeps its state. */
export function usualDirectories(stateDir = usualStateDir): string[] {
  return plugins.map((name) => join(stateDir, name));
}

/** The directories in which the plugins of a network save; none for a network of other plugins. */
export function directoriesIn(network: Pick<NetworkList, 'plugins'>): string[] {
  return network.plugins.flatMap(({ type, config }) => {
    const plugin = plugins.find((name) => name === type);
    if (!plugin) return [];
    const cniDir = getKey(config, 'cniDir');
    return [directoryOf(plugin, typeof cniDir === 'string' ? cniDir : '')];
  });
}
