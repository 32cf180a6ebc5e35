/**
 * The result cache in libcni's format: what ADD returned for each attachment. A runtime has one, and Multus
 * has one for its delegates.
 */

import { join } from 'node:path';
import type { AttachmentId } from '../attachment.ts';
import { ifnameProblem, isValidName } from '../cni/invocation.ts';
import { isObject } from '../object.ts';
import { readStateFile } from '../state-file.ts';

/** An attachment as the cache has it. */
export interface CachedAttachment extends AttachmentId {
  /** The network's configuration at the time. */
  readonly config: Buffer;
  /** Path of the sandbox's namespace; "" when neither the runtime recorded it nor the result names it. */
  readonly netns: string;
  readonly args: readonly (readonly [string, string])[];
  readonly capabilityArgs: Readonly<Record<string, unknown>>;
  /** Result of ADD, in the version of its "cniVersion"; undefined when none was kept. */
  readonly result: Record<string, unknown> | undefined;
}

/** A file of the cache that cannot be read. */
export class CacheError extends Error {
  readonly file: string;

  constructor(file: string, why: string) {
    super(
      `The cached result "${file}" ${why}. Detach with "cni del" or let the runtime do so, which works without it; ` +
        'what it recorded of the attachment is lost',
    );
    this.name = 'CacheError';
    this.file = file;
  }
}

/** What libcni calls the format. */
const kind = 'cniCacheV1';

/** The directory of a cache in which its files are. */
export function resultsIn(cacheDir: string): string {
  return join(cacheDir, 'results');
}

/** Path of an attachment's file. @param cacheDir the directory above `results`. */
export function cacheFile(cacheDir: string, { network, containerId, ifname }: AttachmentId): string {
  return join(resultsIn(cacheDir), `${network}-${containerId}-${ifname}`);
}

/**
 * Reads one attachment.
 * @returns undefined when there is none.
 * @throws CacheError when the file is damaged.
 */
export function readCached(cacheDir: string, id: AttachmentId): CachedAttachment | undefined {
  const file = cacheFile(cacheDir, id);
  const value = readCacheFile(file);
  if (value === undefined) return undefined;
  // Before there was a kind, libcni wrote the bare result.
  if (value.kind === undefined && value.cniVersion !== undefined)
    return { ...id, config: Buffer.alloc(0), netns: '', args: [], capabilityArgs: {}, result: value };
  const attachment = fromFile(value);
  if (!attachment) throw new CacheError(file, 'is not in the format of libcni');
  return attachment;
}

/** Reads a file of the cache, undefined when there is none. @throws CacheError when it is damaged. */
export function readCacheFile(file: string): Record<string, unknown> | undefined {
  let text: string | undefined;
  try {
    text = readStateFile(file);
  } catch (error) {
    throw new CacheError(file, `cannot be read (${(error as Error).message})`);
  }
  if (text === undefined) return undefined;
  if (text.trim() === '') throw new CacheError(file, 'is empty, as a power failure may leave it');
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (error) {
    throw new CacheError(file, `is not JSON (${(error as Error).message})`);
  }
  if (!isObject(value)) throw new CacheError(file, 'is not a JSON object');
  return value;
}

/** What a file of the cache is to say of an attachment. Field names and order are those of libcni. */
export function toFile(attachment: CachedAttachment): string {
  const { containerId, config, ifname, network, netns, args, capabilityArgs, result } = attachment;
  return JSON.stringify({
    kind,
    containerId,
    config: config.toString('base64'),
    ifName: ifname,
    networkName: network,
    ...(netns && { netns }),
    ...(args.length > 0 && { cniArgs: args }),
    ...(Object.keys(capabilityArgs).length > 0 && { capabilityArgs }),
    result,
  });
}

/** What a file of the cache says; undefined when it is not in the format of libcni. */
export function fromFile(value: Record<string, unknown>): CachedAttachment | undefined {
  const {
    networkName: network,
    containerId,
    ifName: ifname,
    config,
    netns,
    cniArgs,
    capabilityArgs,
    result,
  } = value;
  if (value.kind !== kind) return undefined;
  if (typeof network !== 'string' || typeof containerId !== 'string' || typeof ifname !== 'string')
    return undefined;
  // They become the name of a file again.
  if (!isValidName(network) || !isValidName(containerId) || ifnameProblem(ifname)) return undefined;
  return {
    network,
    containerId,
    ifname,
    config: Buffer.from(typeof config === 'string' ? config : '', 'base64'),
    netns: typeof netns === 'string' && netns !== '' ? netns : sandboxOf(result, ifname),
    args: Array.isArray(cniArgs) ? cniArgs.filter(isPair) : [],
    capabilityArgs: isObject(capabilityArgs) ? capabilityArgs : {},
    result: isObject(result) ? result : undefined,
  };
}

function isPair(value: unknown): value is [string, string] {
  return Array.isArray(value) && value.length === 2 && value.every((part) => typeof part === 'string');
}

/**
 * libcni before 1.2, as in containerd 1.7, records no "netns", but the result has the sandbox of each
 * interface.
 */
function sandboxOf(result: unknown, ifname: string): string {
  const { interfaces = [] } = isObject(result) ? result : {};
  const sandboxes = (Array.isArray(interfaces) ? interfaces : [])
    .filter(isObject)
    .filter(({ sandbox }) => typeof sandbox === 'string' && sandbox !== '');
  const own = sandboxes.find(({ name }) => name === ifname) ?? sandboxes[0];
  return (own?.sandbox as string | undefined) ?? '';
}
