/**
 * The subnets that a node leases from etcd. Source: flannel's pkg/subnet/etcd, alongside which this works in
 * the same cluster.
 */

import { type EtcdClient, EtcdUnavailableError } from '../../lib/etcd/client.ts';
import {
  type Compare,
  grantLease,
  hasValue,
  isAbsent,
  type KeyValue,
  put,
  remove,
  revokeLease,
  transact,
} from '../../lib/etcd/kv.ts';
import { type Family, Prefix } from '../../lib/ip.ts';
import type { NetworkConfig, Range } from './network-config.ts';
import { isOfNetwork, type Node, overlap, type Reach, reachValue, type Subnets, subnetKey } from './node.ts';

/** How long a node that no longer renews its lease keeps its subnets, in seconds. */
const leaseSeconds = 24 * 60 * 60;

/** One is drawn from this many free subnets, so that two nodes that look at once seldom take the same. */
const candidates = 100;

/** A node's key in etcd. */
export interface NodeKey {
  readonly kv: KeyValue;
  readonly node: Node;
}

/** What a node has leased. */
export interface Lease {
  readonly subnets: Subnets;
  readonly key: string;
  readonly value: string;
  /** When it ends, in milliseconds of performance.now(); Infinity for one that an operator has reserved. */
  readonly end: number;
}

/** The node that leases, and the network that it leases from. */
export interface Tenant {
  readonly client: EtcdClient;
  /** What the keys of nodes begin with, with a final "/". */
  readonly prefix: string;
  readonly config: NetworkConfig;
  readonly reach: Reach;
}

/**
 * Leases subnets: those that the node's public address already has, those that it had before, or others.
 * @param found the keys of all nodes. @param previous subnets that it had.
 * @param held the node's lease, which counts even if its address has changed since.
 * @returns undefined when another node was faster: list the keys again.
 * @throws as {@link EtcdClient.ask}; Error when all subnets are taken.
 */
export async function leaseSubnets(
  tenant: Tenant,
  found: readonly NodeKey[],
  previous: Subnets | undefined,
  held?: Lease,
): Promise<Lease | undefined> {
  const { client, config, prefix } = tenant;
  const own =
    found.find(({ kv }) => kv.key === held?.key && kv.value === held.value) ??
    found.find(({ node }) => isOwn(tenant, node));
  if (own && isOfNetwork(config, own.node.subnets))
    return await write(
      tenant,
      own.node.subnets,
      own.kv.key,
      hasValue(own.kv.key, own.kv.value),
      own.kv.lease,
    );
  if (own) {
    const ours = hasValue(own.kv.key, own.kv.value);
    await transact(client, { compare: [ours], success: [remove(own.kv.key)] });
  }
  const taken = found.filter((one) => one !== own).map(({ node }) => node.subnets);
  const isFree = (subnets: Subnets) => !taken.some((one) => overlap(one, subnets));
  const again = previous && isOfNetwork(config, previous) && isFree(previous) ? previous : undefined;
  const subnets = again ?? drawSubnets(config, taken);
  const key = `${prefix}${subnetKey(subnets)}`;
  return await write(tenant, subnets, key, isAbsent(key));
}

/**
 * Renews a lease.
 * @returns undefined when it is lost: the key is gone, or another node's.
 * @throws as {@link EtcdClient.ask}.
 */
export function renew(tenant: Tenant, { subnets, key, value }: Lease): Promise<Lease | undefined> {
  return write(tenant, subnets, key, hasValue(key, value));
}

/** Whether a node is this one, by its address: etcd has no names of nodes. */
export function isOwn({ reach }: Tenant, { publicIp }: Node): boolean {
  return Boolean(reach.publicIp[4]?.equals(publicIp[4]));
}

/** @param former lease of the key: "0" for one that an operator has reserved, which never ends. */
async function write(
  { client, config, reach }: Tenant,
  subnets: Subnets,
  key: string,
  condition: Compare,
  former?: string,
): Promise<Lease | undefined> {
  const value = reachValue(reach, config.backend.vni);
  const begin = performance.now();
  const lease = former === '0' ? undefined : await grantLease(client, leaseSeconds);
  try {
    const { succeeded } = await transact(client, { compare: [condition], success: [put(key, value, lease)] });
    if (succeeded)
      return { subnets, key, value, end: lease ? begin + leaseSeconds * 1000 : Number.POSITIVE_INFINITY };
  } catch (error) {
    // Without an answer, the key may have the lease.
    if (lease && !(error instanceof EtcdUnavailableError)) await revokeLease(client, lease).catch(() => {});
    throw error;
  }
  if (lease) await revokeLease(client, lease);
  return undefined;
}

/** Draws free subnets. @throws Error when there are none. */
function drawSubnets({ ranges }: NetworkConfig, taken: readonly Subnets[]): Subnets {
  const v4 = free(ranges[4], taken, 4);
  const v6 = ranges[6] && free(ranges[6], taken, 6);
  const place = v4[Math.floor(Math.random() * v4.length)];
  // At the same place, so that nodes taking different IPv4 subnets at once do not take one IPv6 subnet.
  const place6 = v6?.includes(place!) ? place : v6?.[Math.floor(Math.random() * v6.length)];
  if (place === undefined || (v6 && place6 === undefined))
    throw new Error(
      `All subnets of ${ranges[4].network}${ranges[6] ? ` or ${ranges[6].network}` : ''} are taken. Wait until leases of nodes that are gone end, or make the network larger`,
    );
  return {
    4: subnetAt(ranges[4], place),
    6: ranges[6] && place6 !== undefined ? subnetAt(ranges[6], place6) : undefined,
  };
}

/** The places of the first free subnets in a range, counted from its first one. */
function free(range: Range, taken: readonly Subnets[], family: Family): bigint[] {
  const others = taken.flatMap((one) => one[family] ?? []).sort((a, b) => a.first.compare(b.first));
  const size = sizeOf(range);
  const places: bigint[] = [];
  const { value: first } = range.first;
  let next = 0;
  let busyUntil = -1n;
  for (let place = 0n; first + place * size <= range.last.value && places.length < candidates; ) {
    const begin = first + place * size;
    for (let other = others[next]; other && other.first.value < begin + size; other = others[++next])
      if (other.last.value > busyUntil) busyUntil = other.last.value;
    if (busyUntil < begin) places.push(place++);
    // A node's subnet may cover any number of places, which are skipped at once.
    else place = (busyUntil - first) / size + 1n;
  }
  return places;
}

function subnetAt(range: Range, place: bigint): Prefix {
  return new Prefix(range.first.plus(place * sizeOf(range)), range.length);
}

/** How many addresses a node's subnet has. */
function sizeOf({ first, length }: Range): bigint {
  return 1n << BigInt((first.family === 4 ? 32 : 128) - length);
}
