/**
 * What libcni's cache tells about attachments: what ADD returned, until DEL is done. For plugins it is a
 * hint: a runtime may keep its cache elsewhere, and records an attachment only when its whole chain has been
 * added.
 */

import { readdirSync } from 'node:fs';
import type { AttachmentId } from './attachment.ts';
import { errnoOf, fileError, readRegularFile } from './file.ts';
import { Address } from './ip.ts';

/** Where libcni keeps what ADD returned, unless the runtime tells it otherwise. */
const directory = '/var/lib/cni/results';
/** Largest cached result, which includes the network's configuration, in bytes. */
const largestResult = 1024 * 1024;

/** An attachment in the cache. */
export interface CachedResult extends AttachmentId {
  /** Paths of the sandbox: older releases of libcni keep it only among the interfaces of the result. */
  readonly sandboxes: readonly string[];
  readonly interfaces: readonly { name?: unknown; mac?: unknown; sandbox?: unknown }[];
  readonly addresses: readonly Address[];
  /** The network's configuration in base64; "" when none was kept. */
  readonly config: string;
}

/**
 * Reads the cache. Files that are damaged, foreign or gone are skipped.
 * @param mayBe whether to read a file of this name, as in `<network>-<container ID>-<interface>`; all when
 *   left out.
 * @throws CniError when the system is short of files or memory, or the disk fails.
 */
export function* cachedResults(mayBe: (name: string) => boolean = () => true): Generator<CachedResult> {
  for (const name of fileNames()) {
    const entry = mayBe(name) && readEntry(`${directory}/${name}`);
    if (entry) yield entry;
  }
}

function fileNames(): string[] {
  try {
    return readdirSync(directory);
  } catch (error) {
    if (isOutOfResources(error)) throw fileError('list', directory, error);
    return [];
  }
}

function readEntry(file: string): CachedResult | undefined {
  try {
    const value: unknown = JSON.parse(readRegularFile(file, { limit: largestResult }));
    const { networkName: network, containerId, ifName: ifname, netns, result, config } = objectOf(value);
    if (typeof network !== 'string' || typeof containerId !== 'string') return undefined;
    const { interfaces, ips, ip4, ip6 } = objectOf(result);
    const links = listOf(interfaces);
    const texts = [...listOf(ips).map(({ address }) => address), objectOf(ip4).ip, objectOf(ip6).ip];
    return {
      network,
      containerId,
      ifname: typeof ifname === 'string' ? ifname : '',
      sandboxes: [...new Set([netns, ...links.map(({ sandbox }) => sandbox)])].filter(
        (path): path is string => typeof path === 'string' && path !== '',
      ),
      interfaces: links,
      config: typeof config === 'string' ? config : '',
      addresses: texts.flatMap((text) =>
        typeof text === 'string' ? (Address.tryParse(text.split('/')[0]!) ?? []) : [],
      ),
    };
  } catch (error) {
    if (isOutOfResources(error)) throw fileError('read', file, error);
    return undefined;
  }
}

/** Whether reading failed for a reason that says nothing about what is read. */
function isOutOfResources(error: unknown): boolean {
  return ['EMFILE', 'ENFILE', 'ENOMEM', 'EIO'].includes(errnoOf(error) ?? '');
}

function objectOf(value: unknown): Record<string, unknown> {
  return typeof value === 'object' && value !== null ? (value as Record<string, unknown>) : {};
}

function listOf(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value) ? value.map(objectOf) : [];
}
