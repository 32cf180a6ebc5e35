/** What each backend for port mappings has to do, and what it is told. */

import type { AttachmentId } from '../attachment.ts';
import type { Address, Family, Prefix } from '../ip.ts';
import type { Neighbours, RegisterUndo } from './backend.ts';

/** One port of the host that leads to one of a container. */
export interface PortMapping {
  hostPort: number;
  containerPort: number;
  /** "tcp", "udp" or "sctp". */
  protocol: string;
  /** Address on the host; all of its addresses when left out. */
  hostIP?: Address;
}

/** What the operator chose for a network. */
export interface PortMapOptions {
  /**
   * Masquerade connections from the host itself, and from the container to its own port; without it, neither
   * gets through.
   */
  snat: boolean;
  /** Masquerade every source. */
  masqAll: boolean;
  /** Bit of the packet mark that asks for masquerading, 0 to 31. */
  markMasqBit: number;
  /** Somebody else's chain that marks packets for masquerading. */
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

/** A backend that maps ports. */
export interface PortMapBackend {
  /**
   * Maps ports, in place of any that the attachment has. Mappings in the way whose container no longer exists
   * are removed.
   * @param undo is told how to undo what this call has changed, and only that.
   * @returns the mappings that were in the way.
   * @throws Error naming the holder when a port is taken.
   */
  add(request: PortMapRequest, undo: RegisterUndo): Promise<MappedPort[]>;
  /**
   * Makes way for mappings by another backend, as {@link add} does by this one.
   * @returns the mappings that were in the way.
   * @throws Error naming the holder when a port is taken.
   */
  free(request: PortMapRequest): Promise<MappedPort[]>;
  /**
   * Removes every mapping of the attachment.
   * @param neighbours none when the sandbox no longer exists.
   * @param hints what is known about it; never needed, but it may save listing rules.
   * @returns the mappings that were there, as far as the rules tell.
   */
  del(attachment: AttachmentId, neighbours: Neighbours, hints?: PortMapHints): Promise<MappedPort[]>;
  /** Describes what is missing of what {@link add}, or the reference plugin in its place, makes. */
  missing(request: PortMapCheck): Promise<string[]>;
  /** Removes the mappings of a network's attachments that are not among the valid ones. */
  gc(network: string, valid: readonly AttachmentId[]): Promise<MappedPort[]>;
  /** @throws Error when the backend cannot be used on this host. It changes nothing. */
  probe(): Promise<void>;
}

/** What mappings should be like. */
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
  /** Address on the host, if it was bound to one and that is known. */
  address?: Address | undefined;
  /** Where it went, if that is known. */
  was?: Address | undefined;
}

/**
 * The mappings that apply to a family: those with a host address of that family, and those without an
 * address. Those for every address, including "0.0.0.0" and "::" in their own family, come last, as the first
 * of two rules for a port gets it.
 */
export function mappingsOf(mappings: readonly PortMapping[], family: Family): PortMapping[] {
  const own = mappings.filter(({ hostIP }) => (hostIP?.family ?? family) === family);
  return [...own.filter(boundAddress), ...own.filter((mapping) => !boundAddress(mapping))];
}

/** The address that a mapping is bound to; undefined if it is for every address. */
export function boundAddress({ hostIP }: PortMapping): Address | undefined {
  return hostIP?.isUnspecified ? undefined : hostIP;
}

/**
 * True when a mapping and a taken port cannot both be served.
 * @param taken the address that is taken; undefined if every address is.
 */
export function isClash(mapping: PortMapping, taken: Address | undefined): boolean {
  const wanted = boundAddress(mapping);
  return !taken || !wanted || wanted.equals(taken);
}

/**
 * Whether containers may have a port in common: conditions divide its traffic among them in ways that cannot
 * be compared.
 */
export function isDivided({ options }: Pick<PortMapRequest, 'options'>, family: Family): boolean {
  return options.conditions[family].length > 0;
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
