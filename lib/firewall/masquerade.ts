/** Masquerading: packets of a container that leave its subnet bear the node's address. */

import type { AttachmentId } from '../attachment.ts';
import type { Prefix } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import { iptablesMasquerade } from './masquerade-iptables.ts';
import { nftablesMasquerade } from './masquerade-nftables.ts';

/** One way to masquerade. */
export interface MasqueradeBackend {
  /** Masquerades these addresses. Doing it twice is no error. @param prefixes with the length of their subnet. */
  add(attachment: AttachmentId, prefixes: readonly Prefix[]): Promise<void>;
  /** Takes back what {@link add} did, whoever did it. @param hints the addresses as far as they are known. */
  del(attachment: AttachmentId, hints: readonly Prefix[]): Promise<void>;
  /** @throws Error when a rule is missing. */
  check(attachment: AttachmentId, prefixes: readonly Prefix[]): Promise<void>;
  /** @throws Error when the backend cannot be used on this node. */
  probe(): Promise<void>;
  /** Removes the rules of a network's attachments that are not among the valid ones. */
  gc(network: string, valid: readonly Omit<AttachmentId, 'network'>[]): Promise<void>;
}

/** Names of the backends, as "ipMasqBackend" gives them. */
export const masqueradeBackends = ['iptables', 'nftables'] as const;

/** A backend by its name, one of {@link masqueradeBackends}. */
export function masqueradeBackend(name: string, programs: Programs): MasqueradeBackend {
  return name === 'nftables' ? nftablesMasquerade : iptablesMasquerade(programs);
}
