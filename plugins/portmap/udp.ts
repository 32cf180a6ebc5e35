/** UDP connections through mapped ports: the kernel tracks them, and keeps sending where they first went. */

import {
  boundAddress,
  mappingsOf,
  type PortMapHints,
  type PortMapping,
} from '../../lib/firewall/portmap-backend.ts';
import { notedPorts, type UdpPort } from '../../lib/firewall/portmap-notes.ts';
import { type Family, families, type Prefix } from '../../lib/ip.ts';
import { forgetUdp, type StalePort } from '../../lib/kernel/conntrack.ts';
import { isKernelError } from '../../lib/netlink/libc.ts';
import type { PortMapCall } from './config.ts';

/**
 * Has the kernel forget tracked UDP connections. A kernel built without support for that must not stop the
 * runtime.
 * @throws KernelError for any other error, so that the runtime calls again: otherwise, packets of a running
 *   conversation would not get where the port leads now.
 */
export function forgetConnections(call: PortMapCall, ports: readonly StalePort[]): void {
  try {
    forgetUdp(ports);
  } catch (error) {
    if (!isKernelError(error, 'EINVAL', 'EOPNOTSUPP', 'EPROTONOSUPPORT')) throw error;
    call.warn(`UDP packets of a running conversation still go where they went before: ${error.message}`);
  }
}

/**
 * The UDP ports noted for the attachment.
 * @returns undefined when the note cannot be read; DEL then leaves it to GC.
 */
export function readNotedPorts(call: PortMapCall): readonly UdpPort[] | undefined {
  try {
    return notedPorts(call.attachment);
  } catch (error) {
    call.warn((error as Error).message);
    return undefined;
  }
}

/** The UDP ports that an attachment had, as far as known; to any container if its addresses are unknown. */
export function formerPorts(noted: readonly UdpPort[], told: PortMapHints | undefined): StalePort[] {
  const { mappings = [], containers = [] } = told ?? {};
  if (noted.length > 0 || containers.length > 0) return [...noted, ...udpPorts(mappings, containers)];
  return families.flatMap((family) => udpPortsOf(mappings, family));
}

/** The UDP ports that lead to a container. @param containers its addresses. */
export function udpPorts(mappings: readonly PortMapping[], containers: readonly Prefix[]): UdpPort[] {
  return containers.flatMap(({ family, address }) =>
    udpPortsOf(mappings, family).map((port) => ({ ...port, was: address })),
  );
}

function udpPortsOf(mappings: readonly PortMapping[], family: Family): Omit<UdpPort, 'was'>[] {
  return mappingsOf(mappings, family)
    .filter(isUdp)
    .map((mapping) => ({ family, port: mapping.hostPort, address: boundAddress(mapping) }));
}

export function isUdp({ protocol }: { protocol: string }): boolean {
  return protocol === 'udp';
}
