/** Which firewall a node has. */

import type { Programs } from '../kernel/programs.ts';

/** Names of the backends in configurations. */
export type BackendName = 'iptables' | 'nftables';

/**
 * The backend to use where the configuration names none: iptables, as in the reference plugins, unless it is not installed.
 */
export function defaultBackend(programs: Programs): BackendName {
  try {
    programs.find('iptables-restore');
    return 'iptables';
  } catch {
    return 'nftables';
  }
}
