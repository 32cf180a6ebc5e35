/** Port mappings: connections to a port of the node lead to a container. */

import type { AttachmentId } from '../attachment.ts';
import type { Address, Family, Prefix } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';

/** One port of the node that leads to one of a container. */
export interface PortMapping {
  hostPort: number;
  containerPort: number;
  /** "tcp", "udp" or "sctp". */
  protocol: string;
  /** Address on the node; every address of it when left out. */
  hostIP?: Address;
}

/** What the operator chose for a network. */
export interface PortMapOptions {
  /** Masquerade what comes from the node itself or from the container to its own port; without it neither gets through. */
  snat: boolean;
  /** Masquerade every source. */
  masqAll: boolean;
  /** Bit of the packet mark that asks for masquerading, 0 to 31. */
  markMasqBit: number;
  /** Chain of somebody else's that marks packets for masquerading. */
  externalSetMarkChain?: string | undefined;
  /** Further matches that a packet must meet. */
  conditions: Record<Family, readonly string[]>;
}

/** One way to map ports. */
export interface PortMapBackend {
  /**
   * Maps ports, in place of any that the attachment has.
   * @param containers the container's address of each family, with the length of its subnet.
   * @throws Error naming the holder when a port is taken.
   */
  add(
    attachment: AttachmentId,
    containers: readonly Prefix[],
    mappings: readonly PortMapping[],
    options: PortMapOptions,
  ): Promise<void>;
  /**
   * Removes every mapping of the attachment.
   * @param hints what is known of it; never needed, but it may save a look.
   * @returns the mappings that were there, as far as the rules tell.
   */
  del(attachment: AttachmentId, hints?: PortMapHints): Promise<MappedPort[]>;
  /** @throws Error when a rule is missing. */
  check(
    attachment: AttachmentId,
    containers: readonly Prefix[],
    mappings: readonly PortMapping[],
    options: PortMapOptions,
  ): Promise<void>;
  /** Removes the mappings of a network's attachments that are not among the valid ones. */
  gc(network: string, valid: readonly Omit<AttachmentId, 'network'>[]): Promise<MappedPort[]>;
  /** @throws Error when the backend cannot be used on this node. */
  probe(): Promise<void>;
}

/** What a runtime tells on DEL, if it does. */
export interface PortMapHints {
  /** The container's addresses. Families that are not among them are left out. */
  containers: readonly Prefix[];
  mappings: readonly PortMapping[];
  options: PortMapOptions;
}

/** A mapping that was removed. */
export interface MappedPort {
  family: Family;
  protocol: string;
  port: number;
}

/** Names of the backends, as "backend" gives them. */
export const portMapBackends = ['iptables', 'nftables'] as const;

/** Held while ports are looked up and taken. */
export const portMapLock = '/run/cni/portmap.lock';

/** Loads a backend. @param name one of {@link portMapBackends}. */
export async function portMapBackend(name: string, programs: Programs): Promise<PortMapBackend> {
  if (name === 'nftables') return (await import('./portmap-nftables.ts')).nftablesPortMap(programs);
  return (await import('./portmap-iptables.ts')).iptablesPortMap(programs);
}

/** The mappings that apply to a family: those without an address of the node, or with one of that family. */
export function mappingsOf(mappings: readonly PortMapping[], family: Family): PortMapping[] {
  return mappings.filter(({ hostIP }) => !hostIP || hostIP.isUnspecified || hostIP.family === family);
}

/** The address that a mapping is bound to, undefined for every one. */
export function boundAddress({ hostIP }: PortMapping): Address | undefined {
  return hostIP?.isUnspecified ? undefined : hostIP;
}
