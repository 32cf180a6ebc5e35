/** How much of a range is used. */

import type { EtcdClient } from '../../lib/etcd/client.ts';
import { countOf, get, type OperationResult, transact } from '../../lib/etcd/kv.ts';
import { addressKey, behind } from './keys.ts';
import { legacyKey, parseLegacy } from './legacy.ts';
import { type Pool, partsOf, poolHas } from './pools.ts';

/** How many operations a transaction has at most: etcd takes 128 unless configured otherwise. */
const mostOperations = 100;

/**
 * Counts the addresses of a range that are not free: those that containers have, and those in quarantine.
 * @throws EtcdUnavailableError, CniError as {@link transact}.
 */
export async function countUsed(
  client: EtcdClient,
  { pool, group }: { pool: Pool; group: string },
): Promise<number> {
  const counts = partsOf(pool).map(({ first, last }) =>
    countOf(addressKey({ group, address: first }), behind({ group, address: last })),
  );
  const operations = [get(legacyKey(pool.subnet)), ...counts];
  const results: OperationResult[] = [];
  for (let i = 0; i < operations.length; i += mostOperations)
    results.push(
      ...(await transact(client, { compare: [], success: operations.slice(i, i + mostOperations) })).results,
    );
  const [list, ...counted] = results;
  const listed = parseLegacy(list?.kvs[0]?.value).filter(({ address }) => poolHas(pool, address));
  return counted.reduce((sum, { count }) => sum + count, listed.length);
}
