/** What each backend for masquerading has to do. */

import type { AttachmentId } from '../attachment.ts';
import type { Prefix } from '../ip.ts';
import type { Neighbours, RegisterUndo } from './backend.ts';

/** A backend for masquerading. */
export interface MasqueradeBackend {
  /**
   * Masquerades these addresses. Doing it twice is no error.
   * @param prefixes with the length of their subnet.
   * @param undo is told how to undo what this call has changed, and only that.
   */
  add(attachment: AttachmentId, prefixes: readonly Prefix[], undo: RegisterUndo): Promise<void>;
  /**
   * Undoes what {@link add} did, whichever suite did it.
   * @param neighbours asked when the runtime does not tell which addresses the attachment has.
   * @param hints all of these addresses, if it does.
   */
  del(attachment: AttachmentId, neighbours: Neighbours, hints: readonly Prefix[]): Promise<void>;
  /** Describes what is missing of what {@link add}, or a reference plugin in its place, makes. */
  missing(attachment: AttachmentId, prefixes: readonly Prefix[]): Promise<string[]>;
  /** @throws Error when the backend cannot be used on this host. It changes nothing. */
  probe(): Promise<void>;
  /** Removes the rules of a network's attachments that are not among the valid ones. */
  gc(network: string, valid: readonly AttachmentId[]): Promise<void>;
}
