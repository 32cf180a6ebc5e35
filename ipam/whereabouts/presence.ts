/**
 * Which nodes are alive. ADD and STATUS on a node renew a lease of etcd; when that ends, so does its key. A
 * node that is only cut off from etcd loses its key, too: its absence proves nothing by itself.
 */

import { createHash } from 'node:crypto';
import type { EtcdClient } from '../../lib/etcd/client.ts';
import {
  grantLease,
  isAbsent,
  isLease,
  keysOfLease,
  noneBelow,
  put,
  renewLease,
  transact,
} from '../../lib/etcd/kv.ts';
import { presenceKey } from './keys.ts';

/** How long a node counts as alive after its last call, in seconds. */
export const presenceSeconds = 300;

/** How long a process does not repeat an announcement, in milliseconds. */
const silenceMs = 60_000;

/** The announcements of this process, done or under way, by key; "at" is a time of performance.now(). */
const said = new WeakMap<EtcdClient, Map<string, { at: number; done: Promise<void> }>>();

/**
 * Announces that a node is alive.
 * @param host see {@link hostIdentity}.
 * @throws EtcdUnavailableError, CniError as {@link transact}.
 */
export async function announce(client: EtcdClient, node: string, host?: string): Promise<void> {
  const key = presenceKey(node, host);
  const nodes = said.get(client) ?? new Map<string, { at: number; done: Promise<void> }>();
  said.set(client, nodes);
  const last = nodes.get(key);
  if (last && performance.now() - last.at < silenceMs) return await last.done;
  const done = renew(client, node, host);
  nodes.set(key, { at: performance.now(), done });
  try {
    await done;
  } catch (error) {
    nodes.delete(key);
    throw error;
  }
}

async function renew(client: EtcdClient, node: string, host: string | undefined): Promise<void> {
  const lease = leaseOf(node, host);
  const keys = new Set([presenceKey(node), presenceKey(node, host)]);
  // A call that was killed right after it had got the lease has left no key.
  if (
    (await renewLease(client, lease)) &&
    (await keysOfLease(client, lease)).includes(presenceKey(node, host))
  )
    return;
  // Another process on the node may be faster.
  await grantLease(client, presenceSeconds, lease).catch(() => {});
  await transact(client, { compare: [], success: [...keys].map((key) => put(key, '', lease)) });
}

/**
 * Whether a host of a node has called in the last minutes. That is told by its lease, not by the key: a call
 * that was killed right after it had got the lease has left no key until the next one.
 * @param host undefined for callers that do not tell it.
 * @throws as {@link announce}.
 */
export function isPresent(client: EtcdClient, node: string, host: string | undefined): Promise<boolean> {
  return isLease(client, leaseOf(node, host));
}

/** Whether any host of a node has called in the last minutes, by their keys. @throws as {@link announce}. */
export async function hasPresence(client: EtcdClient, node: string): Promise<boolean> {
  const key = presenceKey(node);
  const { succeeded } = await transact(client, {
    compare: [isAbsent(key), noneBelow(`${key}/`)],
    success: [],
  });
  return !succeeded;
}

/** The lease of a host, which is the same for all of its calls: a positive number of 63 bits. */
function leaseOf(node: string, host: string | undefined): string {
  const digest = createHash('sha256').update(presenceKey(node, host)).digest('hex').slice(0, 15);
  return `${BigInt(`0x${digest}`) + 1n}`;
}
