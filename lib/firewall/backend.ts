/** Which firewall a node has. */

import { accessSync, constants } from 'node:fs';

/** Where programs are looked for: runtimes often start plugins with a bare environment. */
export const programPath = `${process.env.PATH ?? ''}:/usr/sbin:/sbin:/usr/bin:/bin`;

/** Names of the backends in configurations. */
export type BackendName = 'iptables' | 'nftables';

/**
 * The backend to use where the configuration names none: iptables, as in the reference plugins, unless only nftables is there.
 */
export function defaultBackend(): BackendName {
  const installed = programPath.split(':').some((directory) => {
    try {
      accessSync(`${directory}/iptables-restore`, constants.X_OK);
      return directory !== '';
    } catch {
      return false;
    }
  });
  return installed ? 'iptables' : 'nftables';
}
