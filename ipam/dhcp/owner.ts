/** Who owns a lease. */

import type { AttachmentId } from '../../lib/attachment.ts';
import { object, required, string } from '../../lib/cni/schema.ts';

/** An attachment, and where its interface is. */
export interface LeaseOwner extends AttachmentId {
  /** Path of the network namespace, as the daemon sees it. */
  readonly netns: string;
}

/** An owner as it is sent over the socket and written down. */
export const ownerSchema = object({
  containerId: required(string()),
  network: required(string()),
  ifname: required(string()),
  netns: required(string()),
});
