/**
 * Which attachment has an address now, according to what libcni and host-local have on disk. An attachment
 * that a reference plugin let through the firewall has no claim (see claims.ts), but libcni's cache has it
 * once it has been added, and host-local has its reservation before that.
 */

import { type AttachmentId, attachmentKey } from '../attachment.ts';
import { readRegularFile } from '../file.ts';
import type { Address } from '../ip.ts';
import { isNetnsGone } from '../kernel/netns.ts';
import { cachedResults } from '../result-cache.ts';

/** Where host-local keeps its reservations, unless "ipam.dataDir" says otherwise. */
const reservations = '/var/lib/cni/networks';

/** Addresses of attachments, from records other than claims. */
export interface NotedAddresses {
  /** Those of attachments of the network that no longer exist. */
  readonly stale: readonly Address[];
  /** Tells whether an attachment that exists has an address. */
  isHeld(address: Address): boolean;
}

/** What GC of a network finds. @param valid attachments of the network that exist. */
export function notedAddresses(network: string, valid: readonly AttachmentId[]): NotedAddresses {
  const keep = new Set(valid.map(attachmentKey));
  const cached = [...cachedResults()];
  const isValid = (one: AttachmentId) => one.network === network && keep.has(attachmentKey(one));
  const held = setOf(cached.filter((one) => isValid(one) || (one.network !== network && isAlive(one))));
  return {
    stale: cached
      .filter((one) => one.network === network && !isValid(one))
      .flatMap(({ addresses }) => addresses),
    isHeld: (address) => held.has(`${address}`),
  };
}

/**
 * Tells on DEL whether an attachment other than the one being deleted has an address.
 * @param options.isKnown whether the attachment has claims: then the cache, which takes long to read on a
 *   full host, is not read.
 * @param options.isGone whether an attachment is known to be gone.
 */
export function heldByOthers(
  own: AttachmentId,
  { isKnown, isGone }: { isKnown: boolean; isGone(attachment: AttachmentId): boolean },
): NotedAddresses['isHeld'] {
  let held: Set<string> | undefined;
  const isCached = (address: Address) => {
    held ??= setOf(
      [...cachedResults()].filter((one) => attachmentKey(one) !== attachmentKey(own) && isAlive(one)),
    );
    return held.has(`${address}`);
  };
  return (address) => {
    const reserver = reserverOf(own.network, address);
    if (!reserver) return !isKnown && isCached(address);
    return reserver.containerId !== own.containerId && !isGone(reserver);
  };
}

function setOf(attachments: readonly { addresses: readonly Address[] }[]): Set<string> {
  return new Set(attachments.flatMap(({ addresses }) => addresses.map(String)));
}

function isAlive({ sandboxes }: { sandboxes: readonly string[] }): boolean {
  return sandboxes.some((path) => !isNetnsGone(path));
}

/**
 * The attachment that host-local has reserved an address for; undefined when there is none, or when it keeps
 * its reservations elsewhere.
 */
function reserverOf(network: string, address: Address): AttachmentId | undefined {
  try {
    const text = readRegularFile(`${reservations}/${network}/${address}`);
    const [containerId, ifname = ''] = text.trim().split('\r\n');
    return containerId ? { network, containerId, ifname } : undefined;
  } catch {
    return undefined;
  }
}
