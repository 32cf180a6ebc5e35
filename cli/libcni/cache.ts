/**
 * The result cache: what ADD gave for each attachment, in libcni's format and place, so that either can
 * finish what the other began.
 */

import { lstatSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { AttachmentId } from '../../lib/attachment.ts';
import { ifnameProblem, isValidName } from '../../lib/cni/invocation.ts';
import { makeDirectory } from '../../lib/directory.ts';
import { isObject } from '../../lib/object.ts';
import { inDirectory, listStateFiles, readStateFile, unlinkStateFile } from '../../lib/state-file.ts';

/** Where libcni keeps its state unless told otherwise. */
export const defaultCacheDir = '/var/lib/cni';

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
class CacheError extends Error {
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

const kind = 'cniCacheV1';

/** Path of an attachment's file. */
function cacheFile(cacheDir: string, { network, containerId, ifname }: AttachmentId): string {
  return join(cacheDir, 'results', `${network}-${containerId}-${ifname}`);
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

/** A file of the cache as a directory scan finds it. */
export interface CacheEntry {
  readonly file: string;
  /** When ADD was done. */
  readonly since: Date;
  readonly attachment?: CachedAttachment;
  /** What is wrong with it. */
  readonly error?: Error;
}

/** Every file of the cache. */
export function listCache(cacheDir: string): CacheEntry[] {
  const directory = join(cacheDir, 'results');
  let names: string[];
  try {
    names = listStateFiles(directory);
  } catch (error) {
    throw new Error(`Cannot read the result cache "${directory}"`, { cause: error });
  }
  return names
    .filter((name) => !name.startsWith('.'))
    .sort()
    .flatMap((name) => readEntry(join(directory, name)));
}

function readEntry(file: string): CacheEntry[] {
  const status = lstatSync(file, { throwIfNoEntry: false });
  if (!status?.isFile()) return [];
  const entry = { file, since: status.mtime };
  try {
    const value = readCacheFile(file);
    if (value === undefined) return []; // Removed meanwhile.
    const attachment = fromFile(value);
    return [
      attachment
        ? { ...entry, attachment }
        : { ...entry, error: new CacheError(file, 'is not in the format of libcni') },
    ];
  } catch (error) {
    if (error instanceof CacheError) return [{ ...entry, error }];
    throw error;
  }
}

/** Records an attachment. The file is replaced as a whole and is on disk when this returns. */
export function writeCached(cacheDir: string, attachment: CachedAttachment): void {
  const { containerId, config, ifname, network, netns, args, capabilityArgs, result } = attachment;
  // Field names and order are those of libcni.
  const text = JSON.stringify({
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
  const directory = join(cacheDir, 'results');
  makeDirectory(directory, 0o700);
  inDirectory(directory, (path) => {
    // Unlike those of other state files it begins with a dot, as libcni takes every other file for a result.
    const temporary = join(path, `.${process.pid}.tmp`);
    try {
      rmSync(temporary, { force: true });
      writeFileSync(temporary, text, { flag: 'wx', mode: 0o600, flush: true });
      renameSync(temporary, join(path, basename(cacheFile(cacheDir, attachment))));
    } catch (error) {
      rmSync(temporary, { force: true });
      throw error;
    }
  });
}

/** Forgets an attachment. */
export function removeCached(cacheDir: string, id: AttachmentId): void {
  unlinkStateFile(cacheFile(cacheDir, id));
}

function readCacheFile(file: string): Record<string, unknown> | undefined {
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

function fromFile(value: Record<string, unknown>): CachedAttachment | undefined {
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
