/** Port mappings: connections to a port of the host lead to a container. */

import type { Programs } from '../kernel/programs.ts';
import { hasChain } from '../netlink/nftables/objects.ts';
import type { BackendName } from './backend.ts';
import { hasPrograms } from './iptables.ts';
import { nftTableOf, withNftables } from './nftables.ts';
import type { MappedPort, PortMapBackend, PortMapRequest } from './portmap-backend.ts';

/** Loads a backend by its name. */
export async function portMapBackend(name: BackendName, programs: Programs): Promise<PortMapBackend> {
  if (name === 'nftables') return (await import('./portmap-nftables.ts')).nftablesPortMap(programs);
  return (await import('./portmap-iptables.ts')).iptablesPortMap(programs);
}

/**
 * Frees the ports in the backend that is not used: other networks may use it, and pods may be from before
 * iptables was installed.
 * @returns the mappings that were in the way.
 * @throws Error naming the holder when a port is taken.
 */
export async function freeElsewhere(
  used: BackendName,
  programs: Programs,
  request: PortMapRequest,
): Promise<MappedPort[]> {
  const other = used === 'iptables' ? 'nftables' : 'iptables';
  const families = request.containers.map(({ family }) => family);
  const mayHaveMappings =
    other === 'iptables'
      ? families.some((family) => hasPrograms(programs, [family]))
      : withNftables((socket) =>
          families.some((family) => hasChain(socket, nftTableOf(family, 'cni_hostport'), 'hostports')),
        );
  return mayHaveMappings ? (await portMapBackend(other, programs)).free(request) : [];
}
