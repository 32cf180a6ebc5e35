/** Watching the keys below a prefix. Source: etcd's rpc.proto. */

import { isObject } from '../object.ts';
import type { EtcdClient } from './client.ts';
import { behindPrefix, encode, garbled, type KeyValue, readKeyValue } from './kv.ts';

/** The keys below a prefix at one moment. */
export interface Listing {
  readonly kvs: readonly KeyValue[];
  /** Number of the last change to any key of the cluster. */
  readonly revision: bigint;
}

/** A key that was set or deleted. */
export interface KeyChange {
  /** Without value when it was deleted. */
  readonly kv: KeyValue;
  readonly isDeleted: boolean;
}

/** The changes that were asked for are no longer known: list the keys again. */
export class CompactedError extends Error {
  override readonly name = 'CompactedError';
}

/** Lists the keys below a prefix. @throws as {@link EtcdClient.ask}. */
export async function listPrefix(client: EtcdClient, prefix: string): Promise<Listing> {
  const answer = await client.ask('/v3/kv/range', rangeOf(prefix));
  if (!isObject(answer) || !Array.isArray(answer.kvs ?? [])) throw garbled();
  const kvs = (answer.kvs ?? []) as readonly unknown[];
  return { kvs: kvs.map(readKeyValue), revision: revisionOf(answer) };
}

/**
 * Reports changes to the keys below a prefix.
 * @param from first revision to report. @param signal ends it.
 * @returns changes in order, those of one transaction together, until the member ends them.
 * @throws as {@link EtcdClient.follow}; CompactedError; Error when the cluster refuses or ends the watch.
 */
export async function* watchPrefix(
  client: EtcdClient,
  prefix: string,
  from: bigint,
  signal: AbortSignal,
): AsyncGenerator<readonly KeyChange[]> {
  const create_request = { ...rangeOf(prefix), start_revision: `${from}` };
  for await (const message of await client.follow('/v3/watch', { create_request }, signal)) {
    if (!isObject(message) || !Array.isArray(message.events ?? [])) throw garbled();
    const { events = [], canceled, compact_revision, cancel_reason } = message;
    if (typeof compact_revision === 'string' && compact_revision !== '0')
      throw new CompactedError(`Changes before revision ${compact_revision} are no longer known to etcd`);
    const reason = typeof cancel_reason === 'string' ? cancel_reason : 'it gives no reason';
    if (canceled) throw new Error(`etcd has ended the watch: ${reason}`);
    const changes = (events as readonly unknown[]).map(readChange);
    if (changes.length > 0) yield changes;
  }
}

function rangeOf(prefix: string): { key: string; range_end: string } {
  return { key: encode(prefix), range_end: encode(behindPrefix(prefix)) };
}

function revisionOf({ header }: Record<string, unknown>): bigint {
  const revision = isObject(header) ? header.revision : undefined;
  if (typeof revision !== 'string' || !/^\d+$/.test(revision)) throw garbled();
  return BigInt(revision);
}

function readChange(event: unknown): KeyChange {
  if (!isObject(event)) throw garbled();
  // PUT is the default, which the gateway leaves out.
  return { kv: readKeyValue(event.kv), isDeleted: event.type === 'DELETE' };
}
