/** How addresses are given back. */

import { attachmentKey } from '../../lib/attachment.ts';
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
  ownerAt,
  ownerKey,
  parseHolding,
  waitingValue,
} from './keys.ts';
import { withoutContainer } from './legacy.ts';

/**
 * Gives back all that an attachment has, and nothing of anybody else's. It may be repeated. What the host had
 * reserved before its node got another name is found by the addresses.
 * @throws EtcdUnavailableError, CniError as {@link transact}.
 */
export async function release(
  client: EtcdClient,
  { owner, guess, quarantine, lists }: Release,
): Promise<void> {
  const grant = async () => (quarantine > 0 ? await grantLease(client, quarantine) : undefined);
  // Without a guess, the attachment may have nothing, as after an ADD that was refused.
  const lease = guess && (await grant());
  const key = ownerKey(owner);
  const places = (guess?.places ?? []).map(addressKey);
  const { succeeded, results } = await transact(client, {
    compare: [guess ? hasValue(key, formatHolding(guess)) : isAbsent(key)],
    success: [...(guess ? givingBack(owner, guess, lease) : []), ...lists.map(get)],
    failure: [key, ...places, ...lists].map(get),
  });
  if (!succeeded) {
    const [own, ...taken] = results.slice(0, 1 + places.length).map(({ kvs }) => kvs[0]?.value);
    if (own !== undefined) await giveBack(client, owner, own, lease ?? (await grant()));
    else if (guess?.host !== undefined)
      for (const former of formerOwners(owner, taken))
        await giveBackOfHost(client, former, guess.host, lease);
  }
  const found = results.slice(results.length - lists.length);
  for (const [i, list] of lists.entries()) await leaveList(client, list, found[i]?.kvs[0]?.value, owner);
}

/** Gives back what an owner has, trying again while others change it. @param read the owner's value. */
async function giveBack(
  client: EtcdClient,
  owner: Owner,
  read: string,
  lease: string | undefined,
): Promise<void> {
  const key = ownerKey(owner);
  for (let text: string | undefined = read; text !== undefined; ) {
    const { succeeded, results } = await transact(client, {
      compare: [hasValue(key, text)],
      success: givingBack(owner, parseHolding(text), lease),
      failure: [get(key)],
    });
    const now = succeeded ? undefined : results[0]?.kvs[0]?.value;
    if (now === text) throw notText(key);
    text = now;
  }
}

/** The same attachment on nodes of other names. @param taken the values of its addresses. */
function formerOwners(owner: Owner, taken: readonly (string | undefined)[]): Owner[] {
  const found = taken.flatMap((text) => ownerAt(text) ?? []);
  const same = found.filter(
    ({ node, ...id }) => node !== owner.node && attachmentKey(id) === attachmentKey(owner),
  );
  return [...new Map(same.map((one) => [ownerKey(one), one])).values()];
}

/** Gives back what an owner has on a host: another host may have a container of the same ID. */
async function giveBackOfHost(
  client: EtcdClient,
  owner: Owner,
  host: string,
  lease: string | undefined,
): Promise<void> {
  const { results } = await transact(client, { compare: [], success: [get(ownerKey(owner))] });
  const text = results[0]?.kvs[0]?.value;
  if (text !== undefined && parseHolding(text).host === host) await giveBack(client, owner, text, lease);
}

/** The operations that give addresses back. @param lease of the quarantine; undefined when there is none. */
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

/** Removes a container from an old list, even while others change it. */
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

/** For a value that never compares equal, as it is not UTF-8: it would be tried for ever. */
function notText(key: string): Error {
  return new Error(`Key "${key}" of etcd has a value that is not text. Delete the key`);
}
