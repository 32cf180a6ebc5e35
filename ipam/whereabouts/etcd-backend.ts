/** Addresses in etcd: see keys.ts for what is kept where. */

import type { RemoteHolding } from '../../lib/cni/plugin.ts';
import { type EtcdClient, EtcdUnavailableError, etcdClient } from '../../lib/etcd/client.ts';
import { get, transact } from '../../lib/etcd/kv.ts';
import type { Address } from '../../lib/ip.ts';
import { allocate } from './allocate.ts';
import {
  type Backend,
  eachInSpite,
  notReserved,
  type Release,
  reservedForOther,
  type Setting,
  type Source,
} from './backend.ts';
import { endpointsOf, etcdSettings } from './etcd-settings.ts';
import { type Found, holdingsOf, leftBehind } from './holdings.ts';
import { hostIdentity } from './host.ts';
import {
  addressKey,
  groupOf,
  type Owner,
  ownedValue,
  ownerKey,
  type Place,
  parseHolding,
  root,
  samePlace,
} from './keys.ts';
import { legacyKey } from './legacy.ts';
import { type Pool, poolHas, resolvePools, subnetsOf } from './pools.ts';
import { announce } from './presence.ts';
import { release } from './release.ts';
import { directoryOf } from './state.ts';
import { countUsed } from './usage.ts';

export class EtcdBackend implements Backend {
  readonly name = 'etcd';
  readonly directory: string;
  readonly cluster: string;
  private readonly setting: Setting;
  private readonly longestCallMs: number | undefined;
  private readonly host = hostIdentity();
  private opened: EtcdClient | undefined;

  /**
   * @param longestCallMs how long a request may take, if not as long as usual.
   * @throws Error for an invalid address of a member.
   */
  constructor(setting: Setting, longestCallMs?: number) {
    this.setting = setting;
    this.longestCallMs = longestCallMs;
    this.directory = directoryOf('etcd', setting.owner.network);
    this.cluster = endpointsOf(setting.ipam)
      .map(({ origin }) => origin)
      .toSorted()
      .join();
  }

  async pools(): Promise<readonly Pool[]> {
    return resolvePools(this.setting.ipam);
  }

  async allocate(
    sources: readonly Source[],
    onUncertain: () => void,
  ): Promise<{ addresses: Address[]; isNew: boolean }> {
    const { owner, identity, ipam } = this.setting;
    const { client, host } = this;
    const grouped = sources.map((source) => ({ ...source, group: groupOf(ipam, source.pool) }));
    const { places, isNew } = await allocate(client, owner, { identity, host }, grouped, onUncertain);
    return { addresses: places.map(({ address }) => address), isNew };
  }

  releaseOf(addresses: readonly Address[] | undefined): Release {
    const { owner, identity, ipam } = this.setting;
    const guess = addresses && { places: this.guessPlaces(addresses), identity, host: this.host };
    return { owner, guess, quarantine: ipam.quarantine ?? 0, lists: subnetsOf(ipam).map(legacyKey) };
  }

  release(one: Release): Promise<void> {
    return release(this.client, one);
  }

  async check(addresses: readonly Address[]): Promise<void> {
    const { owner } = this.setting;
    const pools = resolvePools(this.setting.ipam);
    const places = this.placesOf(pools, addresses);
    const { results } = await transact(this.client, {
      compare: [],
      success: [ownerKey(owner), ...places.map(addressKey)].map(get),
    });
    const [own, ...taken] = results.map(({ kvs }) => kvs[0]?.value);
    const reserved = parseHolding(own).places;
    const lost = places.find((place) => !reserved.some((one) => samePlace(one, place)));
    if (lost || (pools.length > 0 && reserved.length === 0)) throw notReserved(lost?.address, owner);
    for (const [i, { address }] of places.entries())
      if (taken[i] !== ownedValue(owner)) throw reservedForOther(address, owner);
  }

  async probe(): Promise<void> {
    resolvePools(this.setting.ipam);
    // A range would have etcd walk all keys of the cluster.
    await transact(this.client, { compare: [], success: [get(root)] });
  }

  async collect(isValid: (owner: Owner) => boolean, warn: (message: string) => void): Promise<void> {
    const { node, network } = this.setting.owner;
    const { quarantine = 0 } = this.setting.ipam;
    let ofOthers = 0;
    const work = async ({ owner, holding }: Found) => {
      if (isValid(owner)) return;
      if (holding.host !== undefined && holding.host !== this.host) ofOthers++;
      else await this.release({ owner, guess: holding, quarantine, lists: [] });
    };
    try {
      const { isFinal } = this;
      await eachInSpite(holdingsOf(this.client, node, network), work, { isFinal, warn });
    } finally {
      if (ofOthers > 0)
        warn(
          `Kept ${ofOthers === 1 ? 'an attachment' : `${ofOthers} attachments`} of network "${network}" on another host that is named "${node}", too. Give each host a name of its own, by "NODENAME"; or run "cni gc ${network} --node ${node}" if the other host is gone`,
        );
    }
  }

  isFinal(error: unknown): boolean {
    return error instanceof EtcdUnavailableError;
  }

  announce(): Promise<void> {
    return announce(this.client, this.setting.owner.node, this.host);
  }

  leftBehind(isThisNode: boolean): Promise<RemoteHolding[]> {
    const { owner, ipam } = this.setting;
    const { quarantine = 0 } = ipam;
    const self = isThisNode ? { host: this.host } : undefined;
    return leftBehind(this.client, owner.node, { network: owner.network, quarantine, self });
  }

  countUsed(pool: Pool): Promise<number> {
    return countUsed(this.client, { pool, group: groupOf(this.setting.ipam, pool) });
  }

  /** Certificates are not read before they are needed: DEL goes on without them. */
  private get client(): EtcdClient {
    this.opened ??= etcdClient({ ...etcdSettings(this.setting.ipam), longestCallMs: this.longestCallMs });
    return this.opened;
  }

  /** None if the ranges are wrong: etcd is then asked what the attachment has. */
  private guessPlaces(addresses: readonly Address[]): Place[] {
    try {
      return this.placesOf(resolvePools(this.setting.ipam), addresses);
    } catch {
      return [];
    }
  }

  private placesOf(pools: readonly Pool[], addresses: readonly Address[]): Place[] {
    return pools.flatMap((pool) =>
      addresses
        .filter((address) => poolHas(pool, address))
        .map((address) => ({ group: groupOf(this.setting.ipam, pool), address })),
    );
  }
}
