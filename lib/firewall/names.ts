/**
 * Names and comments by which rules are found again. They are the reference plugins', so that either suite
 * finds the other's.
 */

import type { AttachmentId } from '../attachment.ts';
import { cutComment, longestComment } from '../netlink/nftables/wire.ts';
import { sha512 } from './sha512.ts';

/**
 * A prefix followed by as much of the text's SHA-512 as fits.
 * @param length of the whole, in characters.
 */
export function hashName(length: number, prefix: string, text: string): string {
  return (prefix + sha512(text)).slice(0, length);
}

/** iptables allows chain names of 28 characters. */
const chainLength = 28;

/** Chain with the masquerading rules of a container on a network. */
export function masqueradeChain({ network, containerId }: Omit<AttachmentId, 'ifname'>): string {
  return hashName(chainLength, 'CNI-', network + containerId);
}

/** Comment on masquerading rules. */
export function masqueradeComment({ network, containerId }: Omit<AttachmentId, 'ifname'>): string {
  return `name: "${network}" id: "${containerId}"`;
}

/** Chain with the port mappings of a container on a network. */
export function portMapChain({ network, containerId }: Omit<AttachmentId, 'ifname'>): string {
  return hashName(chainLength, 'CNI-DN-', network + containerId);
}

/**
 * Comment on the rules that lead to a container's port mappings. The reference plugin cuts it to 256
 * characters in this way.
 */
export function portMapComment({ network, containerId }: Omit<AttachmentId, 'ifname'>): string {
  const comment = `dnat name: "${network}" id: "${containerId}"`;
  return comment.length > 255 ? `${comment.slice(0, 253)}...` : comment;
}

/**
 * Reads network and container ID back from a comment of either kind.
 * @returns undefined for other comments.
 */
export function readComment(comment: string): { network: string; containerId: string } | undefined {
  const match = /^(?:dnat )?name: "([^"]*)" id: "([^"]*)"?/.exec(comment);
  return match ? { network: match[1]!, containerId: match[2]! } : undefined;
}

/** A hash of sixteen hexadecimal digits that stands for a network. */
export function networkTag(network: string): string {
  return hashName(16, '', network);
}

/**
 * A hash that stands for an attachment, preceded by that of its network: in comments and file names, where
 * the names themselves may be too long.
 */
export function attachmentTag({ network, containerId, ifname }: AttachmentId): string {
  return `${networkTag(network)}-${hashName(16, '', `${ifname}:${containerId}`)}`;
}

/** The reference plugins' comment on nftables rules, cut where it is too long. */
export function attachmentComment(attachment: AttachmentId): string {
  const { network, containerId, ifname } = attachment;
  const text = `${attachmentTag(attachment)}, net: ${network}, if: ${ifname}, id: ${containerId}`;
  return cutComment(text.replaceAll('"', ''));
}

/**
 * Reads an attachment back.
 * @returns undefined for other comments, and for comments that may have been cut.
 */
export function readAttachmentComment(comment: string): AttachmentId | undefined {
  if (Buffer.byteLength(comment) >= longestComment) return undefined;
  const match = /^[0-9a-f-]+, net: ([^,"]+), if: ([^,"]+), id: ([^,"]+)$/.exec(comment);
  return match ? { network: match[1]!, ifname: match[2]!, containerId: match[3]! } : undefined;
}
