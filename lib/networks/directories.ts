/** Where the plugins that attach pods to several networks save the networks of each container. */

import { join } from 'node:path';
import type { NetworkList } from './conflist.ts';

const plugins = ['multus', 'genie'];

/** Directories of the plugins unless "cniDir" says otherwise. @param stateDir that of CNI. */
export function directoriesBelow(stateDir: string): string[] {
  return plugins.map((name) => join(stateDir, name));
}

/** Those of this host. */
export const usualDirectories: readonly string[] = directoriesBelow('/var/lib/cni');

/** The directories that a network names; none for a network of other plugins. */
export function directoriesIn({ plugins: list }: Pick<NetworkList, 'plugins'>): string[] {
  return list.flatMap(({ type, config: { cniDir } }) =>
    plugins.includes(type)
      ? [typeof cniDir === 'string' && cniDir ? cniDir : join('/var/lib/cni', type)]
      : [],
  );
}
