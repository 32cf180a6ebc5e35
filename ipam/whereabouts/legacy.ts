/**
 * The lists of whereabouts 0.5 and older: one key for each range, with a line "ADDRESS CONTAINER" for each
 * address. An address listed there is in use until its container is deleted.
 */

import { hasValue, type Operation, put, remove } from '../../lib/etcd/kv.ts';
import { Address, type Prefix } from '../../lib/ip.ts';

/** An address, and the container that has it. */
export interface LegacyEntry {
  readonly address: Address;
  readonly containerId: string;
}

/** The key of the list of a subnet. */
export function legacyKey(subnet: Prefix): string {
  return `/whereabouts/${subnet}`;
}

export function parseLegacy(text: string | undefined): LegacyEntry[] {
  return (text ?? '').split('\n').flatMap((line) => {
    const [first = '', containerId = ''] = line.trim().split(/\s+/);
    const address = Address.tryParse(first);
    return address ? [{ address, containerId }] : [];
  });
}

/** The transaction that removes a container's lines from an unchanged list; undefined when it has none. */
export function withoutContainer(key: string, text: string, containerId: string) {
  const lines = text.split('\n').filter((line) => line.trim() !== '');
  const kept = lines.filter((line) => line.trim().split(/\s+/)[1] !== containerId);
  if (kept.length === lines.length) return undefined;
  const change: Operation = kept.length === 0 ? remove(key) : put(key, kept.join('\n'));
  return { compare: [hasValue(key, text)], success: [change] };
}
