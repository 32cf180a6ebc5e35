/** IPPool objects, read and changed without a cluster-wide lock: a change fails if others were first. */

import type { Address, Prefix } from '../../../lib/ip.ts';
import { acquireLock } from '../../../lib/kernel/lock.ts';
import { type KubernetesClient, type ObjectList, pathOf } from '../../../lib/kubernetes/client.ts';
import { failedAs } from '../../../lib/kubernetes/error.ts';
import { poolLockFile } from '../state.ts';
import { type Allocation, type Change, type Entry, IpPool, type PoolObject } from './ip-pool.ts';
import { apiVersion, kindPath } from './names.ts';
import { longestTry } from './tries.ts';

/** How many objects to ask for at once: a full one may have a hundred kilobytes. */
const pageSize = 100;

/** An IPPool, and the "network_name" that its addresses belong to. */
export interface PoolRef {
  readonly name: string;
  readonly networkName: string;
}

export class IpPools {
  private readonly client: KubernetesClient;
  private readonly namespace: string;
  private readonly cluster: string;

  /** @param cluster see {@link poolLockFile}. */
  constructor(client: KubernetesClient, namespace: string, cluster: string) {
    this.client = client;
    this.namespace = namespace;
    this.cluster = cluster;
  }

  /** Keeps calls on this node from getting in one another's way. */
  lock(name: string) {
    return acquireLock(poolLockFile(this.cluster, name), longestTry);
  }

  /** @returns undefined when there is none. @throws CniError as {@link IpPool}, {@link KubernetesClient}. */
  async read(name: string, subnet?: Prefix): Promise<IpPool | undefined> {
    try {
      return new IpPool(await this.client.read<PoolObject>(this.path(name)), subnet);
    } catch (error) {
      if (failedAs(error, 'not-found')) return undefined;
      throw error;
    }
  }

  /** Reads the pools of these names that exist, with as few requests as there are pages. */
  async readAll(names: readonly string[]): Promise<IpPool[]> {
    const wanted = new Set(names);
    const pools: IpPool[] = [];
    for await (const object of this.objects())
      if (wanted.has(object.metadata.name)) pools.push(new IpPool(object));
    return pools;
  }

  /** Whether any pool has an address for a container, even in quarantine. */
  async isHeldBy(address: Address, containerId: string): Promise<boolean> {
    for await (const object of this.objects())
      if (IpPool.tryRead(object)?.at(address)?.id === containerId) return true;
    return false;
  }

  /**
   * Entries whose quarantine is over and whose address no pool has for anybody else, by address.
   * @param own who may have them. @param now in seconds since 1970.
   */
  async lapsedBut(own: Allocation, now: number): Promise<ReadonlyMap<string, readonly Entry[]>> {
    const lapsed: Entry[] = [];
    const taken = new Set<string>();
    for await (const object of this.objects())
      for (const entry of IpPool.tryRead(object)?.entries ?? []) {
        if (entry.until !== undefined && entry.until <= now) lapsed.push(entry);
        else if (entry.id !== own.id || entry.ifname !== own.ifname) taken.add(`${entry.address}`);
      }
    const free = lapsed.filter(({ address }) => !taken.has(`${address}`));
    return Map.groupBy(free, ({ address }) => `${address}`);
  }

  /** Creates a pool without addresses. @returns false when the API finds one there, or no room for it. */
  async create(name: string, range: Prefix): Promise<boolean> {
    const object = { apiVersion, kind: 'IPPool', ...IpPool.empty(name, range) };
    try {
      await this.client.create(this.path(), object);
      return true;
    } catch (error) {
      if (failedAs(error, 'conflict')) return false;
      throw error;
    }
  }

  /** @returns false when somebody else has changed the pool meanwhile. */
  async change(pool: IpPool, changes: readonly Change[]): Promise<boolean> {
    try {
      await this.client.patch(this.path(pool.name), pool.patch(changes), 'merge');
      return true;
    } catch (error) {
      if (failedAs(error, 'conflict', 'not-found')) return false;
      throw error;
    }
  }

  /** Asks for any pool. */
  async probe(): Promise<void> {
    await this.client.list(this.path(), { limit: 1 });
  }

  private async *objects(): AsyncGenerator<PoolObject, void> {
    for (let next: string | undefined = ''; next !== undefined; ) {
      const page: ObjectList<PoolObject> = await this.client.list(this.path(), {
        limit: pageSize,
        ...(next && { continue: next }),
      });
      yield* page.items;
      next = page.continue;
    }
  }

  private path(name?: string): string {
    const all = kindPath(this.namespace, 'ippools');
    return name === undefined ? all : `${all}${pathOf(name)}`;
  }
}
