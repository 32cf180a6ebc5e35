/** What a way to map ports has to do, and what it is told. */

import type { AttachmentId } from '../attachment.ts';
import type { Address, Family, Prefix } from '../ip.ts';
import type { Neighbours, RegisterUndo } from './backend.ts';

/** One port of the host that leads to one of a container. */
export interface PortMapping {
  hostPort: number;
  containerPort: number;
  /** "tcp", "udp" or "sctp". */
  protocol: string;
  /** Address on the host; every address of it when left out. */
  hostIP?: Address;
}

/** What the operator chose for a network. */
export interface PortMapOptions {
  /**
   * Masquerade what comes from the host itself or from the container to its own port; without it neither gets
   * through.
   */
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

/** What to map for an attachment. */
export interface PortMapRequest {
  readonly attachment: AttachmentId;
  /** The container's address of each family, with the length of its subnet. */
  readonly containers: readonly Prefix[];
  readonly mappings: readonly PortMapping[];
  readonly options: PortMapOptions;
  readonly neighbours: Neighbours;
}

/** One way to map ports. */
export interface PortMapBackend {
  /**
   * Maps ports, in place of any that the attachment has. Mappings whose container no longer exists give way.
   * @param undo is told how to take back what this call has changed, and that alone.
   * @returns the mappings that gave way.
   * @throws Error naming the holder when a port is taken.
   */
  add(request: PortMapRequest, undo: RegisterUndo): Promise<MappedPort[]>;
  /**
   * Makes way for mappings by another backend, as {@link add} does by this one.
   * @returns the mappings that gave way.
   * @throws Error naming the holder when a port is taken.
   */
  free(request: PortMapRequest): Promise<MappedPort[]>;
  /**
   * Removes every mapping of the attachment.
   * @param neighbours none when the sandbox no longer exists.
   * @param hints what is known of it; never needed, but it may save a look.
   * @returns the mappings that were there, as far as the rules tell.
   */
  del(attachment: AttachmentId, neighbours: Neighbours, hints?: PortMapHints): Promise<MappedPort[]>;
  /** What is missing of what {@link add} makes, or the reference plugin in its place, as texts. */
  missing(request: PortMapCheck): Promise<string[]>;
  /** Removes the mappings of a network's attachments that are not among the valid ones. */
  gc(network: string, valid: readonly AttachmentId[]): Promise<MappedPort[]>;
  /** @throws Error when the backend cannot be used on this host. It changes nothing. */
  probe(): Promise<void>;
}

/** What mappings have to be like. */
export type PortMapCheck = Omit<PortMapRequest, 'neighbours'>;

/**
 * What a runtime tells on DEL, if it does. Families that are not among the containers' addresses have no
 * mappings.
 */
export type PortMapHints = Pick<PortMapRequest, 'containers' | 'mappings' | 'options'>;

/** A mapping that was removed. */
export interface MappedPort {
  family: Family;
  protocol: string;
  port: number;
}

/**
 * The mappings that apply to a family: those with an address of the host of that family, and those without.
 * Those for every address, which "0.0.0.0" and "::" are in their own family, come last, as of two rules for a
 * port the first one gets it.
 */
export function mappingsOf(mappings: readonly PortMapping[], family: Family): PortMapping[] {
  const own = mappings.filter(({ hostIP }) => (hostIP?.family ?? family) === family);
  return [...own.filter(boundAddress), ...own.filter((mapping) => !boundAddress(mapping))];
}

/** The address that a mapping is bound to, undefined for every one. */
export function boundAddress({ hostIP }: PortMapping): Address | undefined {
  return hostIP?.isUnspecified ? undefined : hostIP;
}

/**
 * True when a mapping and a taken port cannot both be served.
 * @param taken the address that is taken, undefined for every one.
 */
export function isClash(mapping: PortMapping, taken: Address | undefined): boolean {
  const wanted = boundAddress(mapping);
  return !taken || !wanted || wanted.equals(taken);
}

/** The error of a taken port. @param where it leads now. */
export function takenError(
  { hostPort, protocol }: PortMapping,
  holder: { containerId: string; network?: string | undefined },
  where: string,
): Error {
  const network = holder.network === undefined ? '' : ` on network "${holder.network}"`;
  return new Error(
    `Port ${hostPort}/${protocol} of the host is taken by container "${holder.containerId}"${network}, where it leads to ${where}. ` +
      'Choose another hostPort, or delete that container; if it no longer exists, run GC for its network',
  );
}
