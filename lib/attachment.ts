/** What identifies an attachment. */

/**
 * One interface of one container on one network. Source: CNI specification 1.1.0, "Container runtime" and
 * "GC".
 */
export interface AttachmentId {
  readonly network: string;
  readonly containerId: string;
  readonly ifname: string;
}

/** A key that no two attachments share: none of the three names can hold a slash. */
export function attachmentKey({ network, containerId, ifname }: AttachmentId): string {
  return `${containerId}/${network}/${ifname}`;
}
