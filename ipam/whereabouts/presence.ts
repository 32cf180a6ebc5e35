/**
 * Which nodes live. ADD and STATUS of a node renew a lease of etcd; when that has ended, so has its key. A node
 * that is only cut off from etcd loses its key, too: that it is absent proves nothing by itself.
 */

import { createHash } from 'node:crypto';
import type { EtcdClient } from '../../lib/etcd/client.ts';
import { get, grantLease, isAbsent, put, renewLease, transact } from '../../lib/etcd/kv.ts';
import { presenceKey } from './keys.ts';

/** How long a node counts as living after its last call, in seconds. */
export const presenceSeconds = 300;

/** How long a process does not say again what it has said, in milliseconds. */
const silenceMs = 60_000;

/** When this process last said so of a node, on the clock of performance.now(). */
const said = new WeakMap<EtcdClient, Map<string, number>>();

/**
 * Says that a node lives.
 * @throws EtcdUnavailableError, CniError as {@link transact}.
 */
export async function announce(client: EtcdClient, node: string): Promise<void> {
  const times = said.get(client) ?? new Map<string, number>();
  said.set(client, times);
  const now = performance.now();
  if (now - (times.get(node) ?? Number.NEGATIVE_INFINITY) < silenceMs) return;
  const lease = leaseOf(node);
  if (!(await renewLease(client, lease))) {
    // Another call on the node may be faster.
    await grantLease(client, presenceSeconds, lease).catch(() => {});
    await transact(client, { compare: [], success: [put(presenceKey(node), '', lease)] });
  }
  times.set(node, now);
}

/** Whether a node has called in the last minutes. @throws as {@link announce}. */
export async function isPresent(client: EtcdClient, node: string): Promise<boolean> {
  const { succeeded } = await transact(client, {
    compare: [isAbsent(presenceKey(node))],
    success: [get(presenceKey(node))],
  });
  return !succeeded;
}

/** The lease of a node, which is the same for all of its calls: a positive number of 63 bits. */
function leaseOf(node: string): string {
  const digest = createHash('sha256').update(presenceKey(node)).digest('hex').slice(0, 15);
  return `${BigInt(`0x${digest}`) + 1n}`;
}
