/** Keys and transactions of etcd, in the JSON of its gateway. Source: etcd's rpc.proto. */

import { CniError, ErrorCode } from '../errors.ts';
import { isObject } from '../object.ts';
import type { EtcdClient } from './client.ts';

/** A condition of a transaction, and an operation within it: see {@link transact}. */
export type Compare = Readonly<Record<string, unknown>>;
export type Operation = Readonly<Record<string, unknown>>;

/** A key that exists. */
export interface KeyValue {
  readonly key: string;
  readonly value: string;
  /** The lease that it ends with; "0" for none. */
  readonly lease: string;
}

/** What one operation answers. */
export interface OperationResult {
  /** The keys that were found, or deleted. */
  readonly kvs: readonly KeyValue[];
  /** How many there are, including those beyond the limit. */
  readonly count: number;
  /** The result of a transaction within the transaction. */
  readonly inner: TxnResult | undefined;
}

/** What a transaction answers. */
export interface TxnResult {
  readonly succeeded: boolean;
  /** One for each operation of the branch that was taken. */
  readonly results: readonly OperationResult[];
}

/** A transaction: if all conditions hold, the first operations are done, else the others. */
export interface Txn {
  readonly compare: readonly Compare[];
  readonly success: readonly Operation[];
  readonly failure?: readonly Operation[];
}

/** True as long as there is no such key. */
export const isAbsent = (key: string): Compare => ({
  key: encode(key),
  target: 'CREATE',
  result: 'EQUAL',
  create_revision: '0',
});

/** True as long as no key begins with a text. */
export const noneBelow = (prefix: string): Compare => ({
  ...isAbsent(prefix),
  range_end: encode(behindPrefix(prefix)),
});

/** True when a key has a value. */
export const hasValue = (key: string, value: string): Compare => ({
  key: encode(key),
  target: 'VALUE',
  result: 'EQUAL',
  value: encode(value),
});

/** Sets a key. @param lease that it ends with; "0" for none. */
export const put = (key: string, value: string, lease = '0'): Operation => ({
  request_put: { key: encode(key), value: encode(value), lease },
});

export const remove = (key: string): Operation => ({
  request_delete_range: { key: encode(key), prev_kv: true },
});

export const get = (key: string): Operation => ({ request_range: { key: encode(key) } });

/**
 * Keys from one up to, but not including, another. etcd 3.4 looks at all of them, whatever the limit is.
 * @param limit how many at most; 0 for all of them.
 */
export const range = (from: string, to: string, options: { limit?: number; keysOnly?: boolean } = {}) => ({
  request_range: {
    key: encode(from),
    range_end: encode(to),
    limit: `${options.limit ?? 0}`,
    keys_only: options.keysOnly ?? false,
  },
});

/** Only how many keys there are. */
export const countOf = (from: string, to: string): Operation => ({
  request_range: { key: encode(from), range_end: encode(to), count_only: true },
});

/** A transaction as an operation of another. */
export const within = ({ compare, success, failure = [] }: Txn): Operation => ({
  request_txn: { compare, success, failure },
});

/** The key after all those that begin with a text. */
export function behindPrefix(prefix: string): string {
  return `${prefix.slice(0, -1)}${String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1)}`;
}

/**
 * Carries out a transaction.
 * @throws EtcdUnavailableError, CniError as {@link EtcdClient.ask}, also for an answer that makes no sense.
 */
export async function transact(client: EtcdClient, txn: Txn): Promise<TxnResult> {
  const { failure = [] } = txn;
  return readTxn(headed(await client.ask('/v3/kv/txn', { ...txn, failure })), { ...txn, failure });
}

/** Ends a lease, and deletes the keys that it still has. */
export async function revokeLease(client: EtcdClient, lease: string): Promise<void> {
  await client.ask('/v3/lease/revoke', { ID: lease });
}

/**
 * Makes a lease.
 * @param seconds until its keys are deleted. @param id "0" for one that etcd chooses.
 * @returns its ID.
 */
export async function grantLease(client: EtcdClient, seconds: number, id = '0'): Promise<string> {
  const answer = (await client.ask('/v3/lease/grant', { TTL: `${seconds}`, ID: id })) as { ID?: unknown };
  if (typeof answer.ID === 'string' && /^\d+$/.test(answer.ID)) return answer.ID;
  throw garbled();
}

/** Renews a lease for its whole time. @returns false when there is no such lease. */
export async function renewLease(client: EtcdClient, id: string): Promise<boolean> {
  const { result } = (await client.ask('/v3/lease/keepalive', { ID: id })) as { result?: unknown };
  return Number(headed(result).TTL ?? 0) > 0;
}

/** Whether there is a lease. @throws as {@link transact}. */
export async function isLease(client: EtcdClient, id: string): Promise<boolean> {
  return Number(headed(await client.ask('/v3/lease/timetolive', { ID: id })).TTL ?? 0) > 0;
}

/** Keys that end with a lease; none when there is no such lease. @throws as {@link transact}. */
export async function keysOfLease(client: EtcdClient, id: string): Promise<string[]> {
  const { keys } = headed(await client.ask('/v3/lease/timetolive', { ID: id, keys: true }));
  return (Array.isArray(keys) ? keys : []).filter((key) => typeof key === 'string').map(decode);
}

/**
 * The header, which every answer of etcd has, tells it from a "{}" that comes from something else.
 * @throws CniError
 */
function headed(answer: unknown): Record<string, unknown> {
  if (!isObject(answer) || !isObject(answer.header)) throw garbled();
  return answer;
}

/** Reads the answer to a transaction, which must have one answer of the right kind for each operation. */
function readTxn(answer: unknown, { success, failure = [] }: Omit<Txn, 'compare'>): TxnResult {
  if (!isObject(answer) || !Array.isArray(answer.responses ?? [])) throw garbled();
  const responses = (answer.responses ?? []) as readonly unknown[];
  const succeeded = answer.succeeded === true;
  const operations = succeeded ? success : failure;
  return { succeeded, results: operations.map((operation, i) => readOperation(responses[i], operation)) };
}

function readOperation(response: unknown, operation: Operation): OperationResult {
  const [[request, asked]] = Object.entries(operation) as [[string, unknown]];
  const found = isObject(response) ? response[request.replace('request', 'response')] : undefined;
  if (!isObject(found)) throw garbled();
  const inner = request === 'request_txn' ? readTxn(found, asked as Omit<Txn, 'compare'>) : undefined;
  const kvs = found.kvs ?? found.prev_kvs ?? [];
  if (!Array.isArray(kvs)) throw garbled();
  return { kvs: kvs.map(readKeyValue), count: Number(found.count ?? 0), inner };
}

/** @throws CniError when it is not a key. */
export function readKeyValue(kv: unknown): KeyValue {
  // The gateway leaves out what is empty or zero.
  const { key, value = '', lease = '0' } = isObject(kv) ? kv : {};
  if (typeof key !== 'string' || typeof value !== 'string' || typeof lease !== 'string') throw garbled();
  return { key: decode(key), value: decode(value), lease };
}

/** An answer that makes no sense. */
export function garbled(): CniError {
  return new CniError(
    ErrorCode.TryAgainLater,
    'What answers in place of etcd does not speak as etcd 3.4 or newer does. Correct the address of etcd in the configuration, or see what listens there',
  );
}

/** A key or value as the gateway wants it. */
export function encode(text: string): string {
  return Buffer.from(text, 'utf8').toString('base64');
}

function decode(text: string): string {
  return Buffer.from(text, 'base64').toString('utf8');
}
