/** How addresses are given back. */

import type { EtcdClient } from '../../lib/etcd/client.ts';
import {
  type Compare,
  get,
  grantLease,
  hasValue,
  isAbsent,
  type Operation,
  put,
  remove,
  transact,
  within,
} from '../../lib/etcd/kv.ts';
import type { Release } from './backend.ts';
import {
  addressKey,
  formatHolding,
  type Holding,
  identityKey,
  type Owner,
  ownedValue,
  ownerKey,
  parseHolding,
  waitingValue,
} from './keys.ts';
import { withoutContainer } from './legacy.ts';

/**
 * Gives back all that an attachment has, and nothing of anybody else, also when it was done before.
 * @throws EtcdUnavailableError, CniError as {@link transact}.
 */
export async function release(
  client: EtcdClient,
  { owner, guess, quarantine, lists }: Release,
): Promise<void> {
  const lease = quarantine > 0 ? await grantLease(client, quarantine) : undefined;
  const key = ownerKey(owner);
  const look = [get(key), ...lists.map(get)];
  const condition = guess ? hasValue(key, formatHolding(guess)) : isAbsent(key);
  const done = guess ? givingBack(owner, guess, lease) : [];
  let { succeeded, results } = await transact(client, {
    compare: [condition],
    success: [...done, ...lists.map(get)],
    failure: look,
  });
  // Something else stands there than was expected, until nobody changes it meanwhile.
  for (let text = succeeded ? undefined : results[0]?.kvs[0]?.value; text !== undefined; ) {
    const again = await transact(client, {
      compare: [hasValue(key, text)],
      success: [...givingBack(owner, parseHolding(text), lease), ...lists.map(get)],
      failure: look,
    });
    ({ succeeded, results } = again);
    const now = succeeded ? undefined : results[0]?.kvs[0]?.value;
    if (now === text) throw notText(key);
    text = now;
  }
  const found = results.slice(results.length - lists.length);
  for (const [i, list] of lists.entries()) await leaveList(client, list, found[i]?.kvs[0]?.value, owner);
}

/** What gives addresses back. @param lease of the quarantine; undefined when there is none. */
export function givingBack(
  owner: Owner,
  { places, identity }: Holding,
  lease: string | undefined,
): Operation[] {
  const isOwn = (key: string): Compare => hasValue(key, ownedValue(owner));
  const addresses = places.map(addressKey).map((key) =>
    within({
      compare: [isOwn(key)],
      success: [lease === undefined ? remove(key) : put(key, waitingValue(identity), lease)],
    }),
  );
  const waits = lease !== undefined && identity !== '' && places.length > 0;
  return [
    remove(ownerKey(owner)),
    ...addresses,
    ...(waits ? [put(identityKey(identity), formatHolding({ places, identity }), lease)] : []),
  ];
}

/** Takes a container out of an old list, whoever else changes it. */
async function leaveList(
  client: EtcdClient,
  list: string,
  text: string | undefined,
  { containerId }: Owner,
): Promise<void> {
  for (let now = text; now !== undefined; ) {
    const change = withoutContainer(list, now, containerId);
    if (!change) return;
    const { succeeded, results } = await transact(client, { ...change, failure: [get(list)] });
    const next = succeeded ? undefined : results[0]?.kvs[0]?.value;
    if (next === now) throw notText(list);
    now = next;
  }
}

/** For a value that is not equal to itself: it is no UTF-8, and would be tried for ever. */
function notText(key: string): Error {
  return new Error(`Key "${key}" of etcd has a value that is not text. Delete the key`);
}
