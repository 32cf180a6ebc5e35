/** The ranges of a network, and the IPPool objects that have their addresses. */

import type { Prefix } from '../../../lib/ip.ts';
import type { Setting } from '../backend.ts';
import type { Owner } from '../keys.ts';
import { narrowPool, type Pool, resolvePools, subnetsOf } from '../pools.ts';
import { largestOffset } from './ip-pool.ts';
import type { PoolRef } from './ip-pools.ts';
import { poolName } from './names.ts';
import type { Objects } from './objects.ts';
import { NoSlicesError, readSlices, sliceOf } from './slices.ts';

/** A range, and the object that has its addresses. */
export interface Range {
  readonly pool: Pool;
  readonly ref: PoolRef;
  /** "range" of the object. */
  readonly network: Prefix;
}

/** Whether each node has a part of the range. */
export const hasSlices = ({ ipam }: Setting): boolean => Boolean(ipam.node_slice_size);

/** The ranges of the configuration, as all nodes share them. @throws Error as {@link resolvePools}. */
export function plainRanges({ ipam }: Setting): Range[] {
  const networkName = ipam.network_name ?? '';
  return resolvePools(ipam).map((pool) => {
    const { first, last } = pool.subnet;
    const furthest = last.value - first.value > largestOffset ? first.plus(largestOffset) : last;
    const ref = { networkName, name: poolName(networkName, '', pool.subnet) };
    return { pool: narrowPool(pool, first, furthest), ref, network: pool.subnet };
  });
}

/** The part of the range that this node has. @throws CniError when it has none. */
export async function sliceRange({ client, namespace }: Objects, setting: Setting): Promise<Range> {
  const [pool] = resolvePools(setting.ipam);
  const { node } = setting.owner;
  const name = sliceName(setting);
  const network = sliceOf(await readSlices(client, namespace, name), node, name);
  const ends: [number, number] = network.length < 31 ? [1, -1] : [0, 0];
  const [first, last] = [network.first.plus(ends[0]), network.last.plus(ends[1])];
  const networkName = setting.ipam.network_name ?? '';
  const ref = { networkName, name: poolName(networkName, node, network) };
  return { pool: narrowPool(pool!, first, last), ref, network };
}

/** Names of the objects that have addresses of a pool, of all nodes. */
export async function poolNamesOf(objects: () => Objects, setting: Setting, pool: Pool): Promise<string[]> {
  const networkName = setting.ipam.network_name ?? '';
  if (!hasSlices(setting)) return [poolName(networkName, '', pool.subnet)];
  const { client, namespace } = objects();
  const slices = await readSlices(client, namespace, sliceName(setting));
  return slices.map(({ node, range }) => poolName(networkName, node, range));
}

/** What identifies the pools of an attachment in its release, without asking the API. */
export function listsOf(setting: Setting): string[] {
  const networkName = setting.ipam.network_name ?? '';
  if (hasSlices(setting)) return [JSON.stringify([networkName, '', sliceName(setting)])];
  return subnetsOf(setting.ipam).map((subnet) =>
    listOf({ networkName, name: poolName(networkName, '', subnet) }),
  );
}

export const listOf = ({ networkName, name }: PoolRef): string => JSON.stringify([networkName, name]);

/** The pool that a release names; undefined when there is none any more. */
export async function refOf(
  { client, namespace }: Objects,
  list: string,
  { node }: Owner,
): Promise<PoolRef | undefined> {
  const [networkName = '', name = '', slices = ''] = namesIn(list);
  if (name) return { networkName, name };
  if (!slices) return undefined;
  const all = await readSlices(client, namespace, slices).catch((error: unknown) => {
    if (error instanceof NoSlicesError) return [];
    throw error;
  });
  const own = all.find((slice) => slice.node === node);
  return own && { networkName, name: poolName(networkName, node, own.range) };
}

function namesIn(list: string): string[] {
  try {
    const names: unknown = JSON.parse(list);
    return Array.isArray(names) ? names.map(String) : [];
  } catch {
    return [];
  }
}

/** Name of the NodeSlicePool. */
function sliceName({ ipam, owner }: Setting): string {
  return ipam.network_name || owner.network;
}
