/** Letting forwarded packets through: what each backend has to do. */

import type { AttachmentId } from '../attachment.ts';
import type { Address, Family } from '../ip.ts';
import type { RegisterUndo } from './backend.ts';

/** Names of the backends, as "backend" gives them. */
export const forwardBackendNames = ['iptables', 'firewalld', 'nftables'] as const;
export type ForwardBackendName = (typeof forwardBackendNames)[number];

/**
 * A bridge whose containers are kept from those of other isolated bridges, and with "isolated" from one
 * another too.
 */
export interface Isolation {
  readonly bridge: string;
  readonly policy: 'same-bridge' | 'isolated';
}

/** What an attachment needs. */
export interface ForwardRequest {
  readonly attachment: AttachmentId;
  /** Whose connections, and the answers to them, are let through. */
  readonly addresses: readonly Address[];
  /** Families of the attachment's addresses. */
  readonly families: readonly Family[];
  /** The rules of a bridge stay when containers go. */
  readonly isolation: Isolation | undefined;
}

/** A backend that lets packets through. */
export interface ForwardBackend {
  /**
   * Lets the addresses through, and isolates the bridge. Doing it twice is no error.
   * @param isNew whether nobody has let these addresses through before.
   * @param undo is told how to undo what this call has added, and only that.
   */
  allow(request: ForwardRequest, isNew: boolean, undo: RegisterUndo): Promise<void>;
  /**
   * Describes what is missing of what {@link allow} makes: nothing when packets of every address get through,
   * and the bridge is isolated.
   */
  missing(request: ForwardRequest): Promise<string[]>;
  /** Undoes what {@link allow} did for addresses. It is no error when there is nothing to undo. */
  remove(addresses: readonly Address[]): Promise<void>;
  /** @throws Error when the backend cannot be used on this host. It changes nothing. */
  probe(): Promise<void>;
}

/** Families of addresses. */
export function familiesOf(addresses: readonly Address[]): Family[] {
  return [...new Set(addresses.map(({ family }) => family))].sort();
}
