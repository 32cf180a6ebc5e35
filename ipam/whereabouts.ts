/** whereabouts: gives addresses away that all nodes of a cluster share, and remembers them in etcd. */

import { hostname } from 'node:os';
import { attachmentKey } from '../lib/attachment.ts';
import type { Call } from '../lib/cni/call.ts';
import { refuse, routeProblems } from '../lib/cni/config-checks.ts';
import type { Environment } from '../lib/cni/invocation.ts';
import { definePlugin, requirePrevResult } from '../lib/cni/plugin.ts';
import { emptyResult } from '../lib/cni/result.ts';
import { CniError, ErrorCode } from '../lib/errors.ts';
import { type EtcdClient, etcdClient } from '../lib/etcd/client.ts';
import { get, range, transact } from '../lib/etcd/kv.ts';
import { errnoOf, readRegularFile } from '../lib/file.ts';
import { allocate } from './whereabouts/allocate.ts';
import { type Config, config, type Ipam, nodeNameFiles, sharedIpam } from './whereabouts/config.ts';
import { endpointsOf, etcdSettings } from './whereabouts/etcd-settings.ts';
import { holdingsOf, leftBehind } from './whereabouts/holdings.ts';
import {
  addressKey,
  groupOf,
  type Holding,
  type Owner,
  ownedValue,
  ownerKey,
  parseHolding,
  root,
  samePlace,
} from './whereabouts/keys.ts';
import { legacyKey } from './whereabouts/legacy.ts';
import { PendingReleases } from './whereabouts/pending.ts';
import { capacityOf, formatPool, type Pool, poolHas, resolvePools } from './whereabouts/pools.ts';
import { announce } from './whereabouts/presence.ts';
import { type Release, release } from './whereabouts/release.ts';
import { configOf, identityOf, requestsOf } from './whereabouts/requests.ts';
import { countUsed } from './whereabouts/usage.ts';

type WhereaboutsCall = Call<Config>;

/** How long etcd is asked for what only an operator looks at. */
const operatorsPatienceMs = 3000;

export const plugin = definePlugin({
  name: 'whereabouts',
  summary: 'Gives addresses away from ranges that all nodes share, and remembers them in etcd.',
  role: 'ipam',
  config,

  // What the flat file may add is not known without looking at the host.
  validate({ ipam }) {
    refuse(...routeProblems(ipam.routes));
    resolvePools(ipam);
    if (ipam.etcd_host) endpointsOf(ipam);
    refuseSlices(ipam);
  },

  explain({ ipam }) {
    const { routes = [], etcd_host = 'etcd', quarantine = 0, addresses = [] } = ipam;
    const pools = resolvePools(ipam);
    return [
      pools.length > 0
        ? `Reserves a free address of ${pools.map(formatPool).join(' and of ')}, which no node gives away twice`
        : '',
      `Remembers it in ${etcd_host}`,
      addresses.length > 0
        ? `Gives the container ${addresses.map(({ address }) => address).join(' and ')}`
        : '',
      quarantine > 0 ? `Keeps a released address for the same pod for ${quarantine} seconds` : '',
      routes.length > 0 ? `Adds routes in the container: ${routes.map(({ dst }) => dst).join(', ')}` : '',
    ];
  },

  pools: ({ ipam }) =>
    resolvePools(ipam).map((pool) => ({ subnet: `${pool.subnet}`, range: formatPool(pool) })),

  sharedRanges(own) {
    const ipam = sharedIpam(own);
    const client = etcdClient({ ...etcdSettings(ipam), longestCallMs: operatorsPatienceMs });
    return resolvePools(ipam).map((pool) => ({
      subnet: `${pool.subnet}`,
      range: formatPool(pool),
      gateway: pool.gateway && `${pool.gateway}`,
      capacity: Number(capacityOf(pool)),
      countUsed: () => countUsed(client, { pool, group: groupOf(ipam, pool) }),
    }));
  },

  async leftBehind({ name: network, ...own }, named, environment) {
    const ipam = sharedIpam(own);
    const node = named.toLowerCase();
    if (node === nodeName(environment))
      throw new Error(`Node "${named}" is this one. Run "cni gc ${network}", which keeps what lives`);
    const { quarantine = 0 } = ipam;
    return await leftBehind(etcdClient(etcdSettings(ipam)), node, { network, quarantine });
  },

  async add(call) {
    const setting = settingOf(call);
    const { ipam, client, pending, owner } = setting;
    refuse(...routeProblems(ipam.routes));
    const { sources, fixed } = requestsOf(call, setting);
    const identity = identityOf(call);
    await pending.cancel(owner);
    const [{ places, isNew }] = await Promise.all([
      allocate(client, owner, identity, sources),
      announceNode(call, setting),
    ]);
    if (isNew) {
      const own = { ...releaseOf(setting), guess: { places, identity } };
      call.undo(`release ${places.map(({ address }) => address).join(' and ')}`, () =>
        releaseOrRemember(call, setting, own),
      );
    }
    const ips = places.map(({ address }, i) => configOf(sources[i]!.pool, address));
    return { ...emptyResult(), ips: [...ips, ...fixed], routes: ipam.routes ?? [], dns: ipam.dns ?? {} };
  },

  async del(call) {
    const setting = settingOf(call);
    await releaseOrRemember(call, setting, { ...releaseOf(setting), guess: guessOf(call, setting) });
  },

  async check(call) {
    const setting = settingOf(call);
    const { client, owner, pools } = setting;
    requirePrevResult(call);
    const { places } = guessOf(call, setting)!;
    const { results } = await transact(client, {
      compare: [],
      success: [ownerKey(owner), ...places.map(addressKey)].map(get),
    });
    const [own, ...taken] = results.map(({ kvs }) => kvs[0]?.value);
    const reserved = parseHolding(own).places;
    const lost = places.find((place) => !reserved.some((one) => samePlace(one, place)));
    if (lost || (pools.length > 0 && reserved.length === 0))
      throw new Error(
        `${lost?.address ?? 'An address'} is not reserved for container "${call.containerId}" and interface "${call.ifname}". Delete the container and add it again`,
      );
    for (const [i, { address }] of places.entries())
      if (taken[i] !== ownedValue(owner))
        throw new Error(
          `Address ${address} of container "${call.containerId}" is reserved for somebody else. Delete the container and add it again`,
        );
  },

  async status(call) {
    try {
      const setting = settingOf(call);
      const { client, pending } = setting;
      await transact(client, {
        compare: [],
        success: [range(root, `${root}~`, { limit: 1, keysOnly: true })],
      });
      await pending.workOff(client);
      await announceNode(call, setting);
    } catch (error) {
      if (!(error instanceof CniError) || error.code !== ErrorCode.TryAgainLater) throw error;
      throw new CniError(
        ErrorCode.NotAvailable,
        `No address can be reserved. ${error.message}`,
        error.details,
      );
    }
  },

  async gc(call) {
    const setting = settingOf(call);
    const { client, pending, node, ipam } = setting;
    await pending.workOff(client);
    const valid = new Set(call.validAttachments.map(attachmentKey));
    for await (const { owner, text } of holdingsOf(client, node, call.network)) {
      if (valid.has(attachmentKey(owner))) continue;
      const { quarantine = 0 } = ipam;
      await release(client, { owner, guess: parseHolding(text), quarantine, lists: [] });
    }
  },
});

/** What a call works with. */
interface Setting {
  readonly ipam: Ipam;
  readonly pools: readonly Pool[];
  readonly client: EtcdClient;
  readonly pending: PendingReleases;
  readonly node: string;
  readonly owner: Owner;
}

/** @throws Error, CniError for a configuration that makes no sense. */
function settingOf(call: WhereaboutsCall): Setting {
  const ipam = sharedIpam(call.config);
  refuseSlices(ipam);
  const pools = resolvePools(ipam);
  const settings = etcdSettings(ipam);
  const node = nodeName(call.context.environment);
  const pending = new PendingReleases(settings);
  return {
    ...{ ipam, pools, pending, node, client: etcdClient(settings) },
    owner: { node, ...call.attachment },
  };
}

function refuseSlices({ node_slice_size }: Ipam): void {
  if (node_slice_size)
    throw new Error(
      '"node_slice_size" gives each node a part of the range, which is not done here, and not needed: nodes do not wait for one another. Take it out',
    );
}

/** Names of nodes are without regard to case, as host names are. */
function nodeName({ NODENAME }: Environment): string {
  const told = NODENAME?.trim();
  if (told) return told.toLowerCase();
  for (const file of nodeNameFiles)
    try {
      const name = readRegularFile(file, { followLink: true }).trim();
      if (name) return name.toLowerCase();
    } catch (error) {
      if (!['ENOENT', 'ENOTDIR'].includes(errnoOf(error) ?? '')) throw error;
    }
  return hostname().toLowerCase();
}

function releaseOf({ owner, ipam, pools }: Setting): Omit<Release, 'guess'> {
  return { owner, quarantine: ipam.quarantine ?? 0, lists: pools.map(legacyKey) };
}

/** What an attachment has by the result of ADD. */
function guessOf(call: WhereaboutsCall, { ipam, pools }: Setting): Holding | undefined {
  if (!call.prevResult) return undefined;
  const addresses = call.prevResult.ips.map(({ address }) => address.address);
  const places = pools.flatMap((pool) =>
    addresses
      .filter((address) => poolHas(pool, address))
      .map((address) => ({ group: groupOf(ipam, pool), address })),
  );
  return { places, identity: identityOf(call) };
}

/** Says that the node lives. An ADD does not fail for that: an operator hears of it when the node is collected. */
async function announceNode(call: WhereaboutsCall, { client, node }: Setting): Promise<void> {
  await announce(client, node).catch(({ message }: Error) => call.warn(message));
}

/** While etcd does not answer, the release waits on the node: a pod can always be torn down. */
async function releaseOrRemember(
  call: WhereaboutsCall,
  { client, pending }: Setting,
  one: Release,
): Promise<void> {
  try {
    await release(client, one);
  } catch (error) {
    pending.remember(one);
    const { message, details } = error as CniError;
    call.warn(
      `The addresses are released by the next call that reaches etcd. ${message}${details ? `: ${details}` : ''}`,
    );
    return;
  }
  await pending.workOff(client).catch(({ message }: Error) => call.warn(message));
}
