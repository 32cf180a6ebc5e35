/** The files of claims: what their names and their content say. See claims.ts. */

import type { AttachmentId } from '../attachment.ts';
import { errnoOf, fileError, removeEntry } from '../file.ts';
import { Address } from '../ip.ts';
import { type ForwardBackendName, forwardBackendNames } from './forward.ts';

/** What the firewall was told. */
export interface ClaimDetails {
  /** The backends that were told, the latest at the end. */
  readonly backends: readonly ForwardBackendName[];
  /** firewalld's zone. */
  readonly zone?: string | undefined;
  /** Path of the sandbox's network namespace. */
  readonly netns?: string | undefined;
  /** Whose the address is. */
  readonly owner?: AttachmentId | undefined;
}

/** One address of one attachment. */
export interface Claim {
  readonly file: string;
  readonly address: Address;
  /** What {@link attachmentTag} makes of the attachment. */
  readonly tag: string;
  /** Whether it is being released: the firewall is being told. */
  readonly isLeaving: boolean;
}

/** Reads the name of a claim. @returns undefined for any other file name. */
export function parseName(file: string): Claim | undefined {
  const match = /^([0-9a-f.:]+)_([0-9a-f]{16}-[0-9a-f]{16})\.(json|leaving)$/.exec(file);
  const address = match && Address.tryParse(match[1]!);
  // Only in canonical form, so that an address has only one file name.
  return address && `${address}` === match[1]
    ? { file, address, tag: match[2]!, isLeaving: match[3] === 'leaving' }
    : undefined;
}

/** The content of a claim. */
export function formatDetails(
  { network, containerId, ifname }: AttachmentId,
  { backends, zone, netns }: ClaimDetails,
): string {
  return JSON.stringify({ network, containerId, ifname, backends, zone, netns });
}

/** @throws Error when the text is not what {@link formatDetails} makes. */
export function parseDetails(text: string): ClaimDetails {
  const value: unknown = JSON.parse(text);
  if (typeof value !== 'object' || value === null) throw new Error('it holds no object');
  const { backends, zone, netns, network, containerId, ifname } = value as Record<string, unknown>;
  if (!Array.isArray(backends)) throw new Error('it names no backends');
  return {
    backends: backends.filter((name): name is ForwardBackendName => forwardBackendNames.includes(name)),
    ...(typeof zone === 'string' && { zone }),
    ...(typeof netns === 'string' && { netns }),
    ...(typeof network === 'string' &&
      typeof containerId === 'string' &&
      typeof ifname === 'string' && { owner: { network, containerId, ifname } }),
  };
}

/** What was told before, and now. @param before undefined when it cannot be read. */
export function union(before: ClaimDetails | undefined, now: ClaimDetails): ClaimDetails {
  // Any of the backends may have been told.
  if (!before) before = { backends: forwardBackendNames };
  return {
    ...before,
    ...now,
    zone: now.zone ?? before.zone,
    backends: [...before.backends.filter((name) => !now.backends.includes(name)), ...now.backends],
  };
}

/**
 * What the firewall was told about each address.
 * @returns undefined for an address with a claim that cannot be read.
 */
export function detailsByAddress(
  claims: readonly Claim[],
  read: (claim: Claim) => ClaimDetails | undefined,
): Map<string, ClaimDetails | undefined> {
  const byAddress = Map.groupBy(claims, ({ address }) => `${address}`);
  return new Map(
    [...byAddress].map(([address, all]) => [
      address,
      all.map(read).reduce((one, other) => one && other && union(one, other)),
    ]),
  );
}

/**
 * Removes all files of claims that can be removed.
 * @param warn is told of a file that stays because the file system is read-only: then nobody claims anything
 *   either, and DEL must come to an end.
 * @throws CniError for a file that stays for another reason.
 */
export function removeClaims(
  directory: string,
  claims: readonly Claim[],
  warn: (message: string) => void,
): void {
  let failure: Error | undefined;
  for (const { file } of claims) {
    const path = `${directory}/${file}`;
    try {
      removeEntry(path);
    } catch (error) {
      const problem = fileError('remove', path, error);
      if (errnoOf(error) === 'EROFS') warn(problem.message);
      else failure ??= problem;
    }
  }
  if (failure) throw failure;
}
