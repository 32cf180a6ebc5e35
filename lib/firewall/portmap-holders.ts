/**
 * Whether the container that holds a port still exists. The rules name the container, but not its sandbox: a
 * file for each attachment with mappings does, and the runtime's cache of results. Both are hints. Where
 * neither tells, the container is taken to exist.
 */

import { readdirSync } from 'node:fs';
import type { AttachmentId } from '../attachment.ts';
import { areNetnsGone } from '../kernel/netns.ts';
import { cachedResults } from '../result-cache.ts';
import {
  readStateFile,
  removeStateFile,
  removeUnfinished,
  unlinkStateFile,
  writeStateFile,
} from '../state-file.ts';
import { portMapChain } from './names.ts';

const directory = '/run/cni/portmap';

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
    return () => {}; // A mapping works without the hint.
  }
}

/** Forgets where an attachment's sandbox was. */
export function forgetSandbox(attachment: Pick<AttachmentId, 'network' | 'containerId'>): void {
  tryTo(() => removeStateFile(fileOf(attachment)));
}

/** Forgets the sandboxes of a network's attachments that are not among the valid ones. */
export function forgetStaleSandboxes(network: string, valid: readonly AttachmentId[]): void {
  const keep = new Set(valid.map(portMapChain));
  for (const one of recorded())
    if (one.network === network && !keep.has(portMapChain(one))) tryTo(() => unlinkStateFile(fileOf(one)));
  removeUnfinished(directory);
}

/** Removes hints if it can: one about an attachment without rules is never looked at. */
function tryTo(remove: () => void): void {
  try {
    remove();
  } catch {
    // The file stays, unused.
  }
}

/** True when every sandbox that the holder is known by no longer exists, and one is known. */
export function isHolderGone({ containerId, isOn }: Holder): boolean {
  const known = [...recorded(), ...cachedResults((name) => name.includes(containerId))].filter(
    (one) => one.containerId && isOn(one),
  );
  return areNetnsGone(known.flatMap((one) => one.sandboxes));
}

interface KnownSandbox {
  readonly network: string;
  readonly containerId: string;
  readonly sandboxes: readonly string[];
}

function* recorded(): Generator<KnownSandbox> {
  for (const name of list(directory)) {
    const known = read(() => readStateFile(`${directory}/${name}`) ?? '');
    const { network, containerId, netns } = known;
    if (typeof network !== 'string' || typeof containerId !== 'string' || typeof netns !== 'string') continue;
    if (name === nameOf({ network, containerId })) yield { network, containerId, sandboxes: [netns] };
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
