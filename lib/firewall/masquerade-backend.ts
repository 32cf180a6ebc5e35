/** What a way to masquerade has to do. */

import type { AttachmentId } from '../attachment.ts';
import type { Prefix } from '../ip.ts';
import type { Neighbours, RegisterUndo } from './backend.ts';

/** One way to masquerade. */
export interface MasqueradeBackend {
  /**
   * Masquerades these addresses. Doing it twice is no error.
   * @param prefixes with the length of their subnet.
   * @param undo is told how to take back what this call has changed, and that alone.
   */
  add(attachment: AttachmentId, prefixes: readonly Prefix[], undo: RegisterUndo): Promise<void>;
  /**
   * Takes back what {@link add} did, whoever did it.
   * @param neighbours asked where the runtime does not tell which addresses the attachment has.
   * @param hints every one of these, if it does.
   */
  del(attachment: AttachmentId, neighbours: Neighbours, hints: readonly Prefix[]): Promise<void>;
  /** What is missing of what {@link add} makes, or the reference plugins in its place, as texts. */
  missing(attachment: AttachmentId, prefixes: readonly Prefix[]): Promise<string[]>;
  /** @throws Error when the backend cannot be used on this host. It changes nothing. */
  probe(): Promise<void>;
  /** Removes the rules of a network's attachments that are not among the valid ones. */
  gc(network: string, valid: readonly AttachmentId[]): Promise<void>;
}
