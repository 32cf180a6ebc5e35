/** Port mappings: connections to a port of the host lead to a container. */

import type { Programs } from '../kernel/programs.ts';
import type { BackendName } from './backend.ts';
import type { PortMapBackend } from './portmap-backend.ts';

/** Loads a backend by its name. */
export async function portMapBackend(name: BackendName, programs: Programs): Promise<PortMapBackend> {
  if (name === 'nftables') return (await import('./portmap-nftables.ts')).nftablesPortMap(programs);
  return (await import('./portmap-iptables.ts')).iptablesPortMap(programs);
}
