/** Addresses that are offered to the cluster, and the transaction that takes the first that is free. */

import type { EtcdClient } from '../../lib/etcd/client.ts';
import {
  type Compare,
  isAbsent,
  type OperationResult,
  put,
  remove,
  type Txn,
  transact,
  within,
} from '../../lib/etcd/kv.ts';
import {
  addressKey,
  formatHolding,
  type Holding,
  identityKey,
  type Owner,
  ownedValue,
  ownerKey,
  type Place,
  samePlace,
} from './keys.ts';

/** How many choices a transaction has. */
export const mostChoices = 4;

/** An address that can be taken, and the condition for that. */
export interface Choice extends Place {
  readonly condition: Compare;
}

/** The offers for the cluster, in order, each with an address of every source. */
export function offersOf(
  lists: readonly (readonly Choice[])[],
  whose: Pick<Holding, 'identity' | 'host'>,
): { holding: Holding; conditions: Compare[] }[] {
  const length = Math.min(mostChoices, Math.max(...lists.map((list) => list.length)));
  return Array.from({ length }, (_, i) => {
    const picked = lists.map((list) => list[i % list.length]!);
    return {
      holding: { ...whose, places: picked.map(({ group, address }) => ({ group, address })) },
      conditions: picked.map(({ condition }) => condition),
    };
  });
}

/** Takes the first offer that nobody else has any part of. @returns it. */
export async function take(
  client: EtcdClient,
  owner: Owner,
  offers: readonly { holding: Holding; conditions: Compare[] }[],
  waiting: Holding | undefined,
): Promise<Holding | undefined> {
  const txns = offers.map(
    ({ holding, conditions }): Txn => ({
      compare: [isAbsent(ownerKey(owner)), ...conditions],
      success: [
        put(ownerKey(owner), formatHolding(holding)),
        ...holding.places.map((place) => put(addressKey(place), ownedValue(owner))),
        // Nothing waits for the pod any more once it takes some of that back.
        ...(waiting?.places.some((place) => holding.places.some((one) => samePlace(one, place)))
          ? [remove(identityKey(holding.identity))]
          : []),
      ],
    }),
  );
  const all = txns.reduceRight<Txn | undefined>(
    (next, txn) => ({ ...txn, failure: next ? [within(next)] : [] }),
    undefined,
  )!;
  let outcome = await transact(client, all);
  for (const { holding } of offers) {
    if (outcome.succeeded) return holding;
    const inner: OperationResult | undefined = outcome.results[0];
    if (!inner?.inner) return undefined;
    outcome = inner.inner;
  }
  return undefined;
}
