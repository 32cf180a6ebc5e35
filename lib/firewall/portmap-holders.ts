/**
 * Whether the container that holds a port still exists. The rules name the container, but not its sandbox: a
 * file for each attachment with mappings does, and the runtime's cache of results. Both are hints. Where
 * neither tells, the container is taken to exist.
 */

import { readdirSync } from 'node:fs';
import type { AttachmentId } from '../attachment.ts';
import { readRegularFile } from '../file.ts';
import { isNetnsGone } from '../kernel/netns.ts';
import { readStateFile, removeStateFile, removeUnfinished, writeStateFile } from '../state-file.ts';
import { portMapChain } from './names.ts';

const directory = '/run/cni/portmap';
/** Where libcni keeps what ADD gave, unless the runtime tells it otherwise. */
const resultCache = '/var/lib/cni/results';
/** Of a cached result, which holds the network's configuration as well. */
const largestResult = 1024 * 1024;

/** What the rules tell of a holder. */
export interface Holder {
  readonly containerId: string;
  /** Tells whether one of the container's attachments is the holder. */
  isOn(attachment: Pick<AttachmentId, 'network' | 'containerId'>): boolean;
}

/** Keeps in mind where an attachment's sandbox is. @returns forgets it again, if it was not known before. */
export function rememberSandbox(attachment: AttachmentId, netns: string): () => void {
  const file = fileOf(attachment);
  const { network, containerId, ifname } = attachment;
  try {
    const before = readStateFile(file);
    writeStateFile(file, JSON.stringify({ network, containerId, ifname, netns }));
    return before === undefined ? () => forgetSandbox(attachment) : () => writeStateFile(file, before);
  } catch {
    return () => {}; // No mapping fails for want of a hint.
  }
}

/** Forgets where an attachment's sandbox was. */
export function forgetSandbox(attachment: Pick<AttachmentId, 'network' | 'containerId'>): void {
  try {
    removeStateFile(fileOf(attachment));
  } catch {
    // A hint about what no rule speaks of harms nobody.
  }
}

/** Forgets the sandboxes of a network's attachments that are not among the valid ones. */
export function forgetStaleSandboxes(network: string, valid: readonly AttachmentId[]): void {
  const keep = new Set(valid.map(portMapChain));
  for (const one of recorded())
    if (one.network === network && !keep.has(portMapChain(one))) forgetSandbox(one);
  removeUnfinished(directory);
}

/** True when every sandbox that the holder is known by no longer exists, and one is known. */
export function isHolderGone({ containerId, isOn }: Holder): boolean {
  const known = [...recorded(), ...cached(containerId)].filter((one) => one.containerId && isOn(one));
  return known.length > 0 && known.every(({ netns }) => isNetnsGone(netns));
}

interface KnownSandbox {
  readonly network: string;
  readonly containerId: string;
  readonly netns: string;
}

function* recorded(): Generator<KnownSandbox> {
  for (const name of list(directory)) {
    const known = read(() => readStateFile(`${directory}/${name}`) ?? '');
    const { network, containerId, netns } = known;
    if (typeof network !== 'string' || typeof containerId !== 'string' || typeof netns !== 'string') continue;
    if (name === nameOf({ network, containerId })) yield { network, containerId, netns };
  }
}

/**
 * Attachments in the runtime's cache. Older releases of libcni keep the sandbox only among the interfaces of
 * the result.
 */
function* cached(containerId: string): Generator<KnownSandbox> {
  for (const name of list(resultCache)) {
    if (!name.includes(containerId)) continue;
    const entry = read(() => readRegularFile(`${resultCache}/${name}`, { limit: largestResult }));
    const { networkName, containerId: id, netns, result } = entry;
    if (typeof networkName !== 'string' || typeof id !== 'string') continue;
    const interfaces = (result as { interfaces?: unknown } | undefined)?.interfaces;
    const sandboxes = (Array.isArray(interfaces) ? interfaces : []).map((one) => one?.sandbox);
    for (const path of new Set([netns, ...sandboxes]))
      if (typeof path === 'string' && path !== '')
        yield { network: networkName, containerId: id, netns: path };
  }
}

function list(path: string): string[] {
  try {
    return readdirSync(path);
  } catch {
    return [];
  }
}

/** Reads a JSON object. A file that is torn or gone tells nothing. */
function read(text: () => string): Record<string, unknown> {
  try {
    const value: unknown = JSON.parse(text());
    return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
  } catch {
    return {};
  }
}

function fileOf(attachment: Pick<AttachmentId, 'network' | 'containerId'>): string {
  return `${directory}/${nameOf(attachment)}`;
}

function nameOf(attachment: Pick<AttachmentId, 'network' | 'containerId'>): string {
  return `${portMapChain(attachment)}.json`;
}
