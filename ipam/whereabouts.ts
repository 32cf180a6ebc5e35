/** whereabouts: gives away addresses that all nodes of a cluster share, by etcd or the Kubernetes API. */

import { hostname } from 'node:os';
import { attachmentKey } from '../lib/attachment.ts';
import type { Call } from '../lib/cni/call.ts';
import { refuse, routeProblems } from '../lib/cni/config-checks.ts';
import type { Environment } from '../lib/cni/invocation.ts';
import { definePlugin, NodePresentError, requirePrevResult } from '../lib/cni/plugin.ts';
import { emptyResult } from '../lib/cni/result.ts';
import { CniError, ErrorCode } from '../lib/errors.ts';
import { errnoOf, readRegularFile } from '../lib/file.ts';
import type { Address } from '../lib/ip.ts';
import type { Backend, Release, Setting, Source } from './whereabouts/backend.ts';
import { type Config, config, type Ipam, nodeNameFiles, sharedIpam } from './whereabouts/config.ts';
import { EtcdBackend } from './whereabouts/etcd-backend.ts';
import { endpointsOf } from './whereabouts/etcd-settings.ts';
import type { Owner } from './whereabouts/keys.ts';
import { PendingReleases, rememberHeld, workOff } from './whereabouts/pending.ts';
import { capacityOf, formatPool, ignoredBounds, resolvePools } from './whereabouts/pools.ts';
import { registersOf } from './whereabouts/registers.ts';
import { configOf, identityOf, podrefOf, requestsOf } from './whereabouts/requests.ts';

type WhereaboutsCall = Call<Config>;

/** How long a request may take for what only an operator looks at. */
const operatorsPatienceMs = 3000;

export const plugin = definePlugin({
  name: 'whereabouts',
  summary: 'Gives addresses away from ranges that all nodes share, by etcd or the Kubernetes API.',
  role: 'ipam',
  interfaceGoes: 'before',
  config,

  // What the flat file may add is not known without looking at the host.
  validate({ ipam }) {
    refuse(...routeProblems(ipam.routes));
    resolvePools(ipam);
    if (ipam.etcd_host) endpointsOf(ipam);
  },

  ignores: ({ ipam }) => ignoredBounds(ipam),

  explain({ ipam }) {
    const { routes = [], kubernetes, quarantine = 0, addresses = [] } = ipam;
    const api = kubernetes?.kubeconfig && `the Kubernetes API of ${kubernetes.kubeconfig}`;
    const pools = resolvePools(ipam);
    return [
      pools.length > 0
        ? `Reserves a free address of ${pools.map(formatPool).join(' and of ')}, which no node gives away twice`
        : '',
      `Remembers it in ${membersOf(ipam) || api || 'etcd or the Kubernetes API'}`,
      addresses.length > 0
        ? `Gives the container ${addresses.map(({ address }) => address).join(' and ')}`
        : '',
      quarantine > 0 ? `Keeps a released address for the same pod for ${quarantine} seconds` : '',
      routes.length > 0 ? `Adds routes in the container: ${routes.map(({ dst }) => dst).join(', ')}` : '',
    ];
  },

  pools: ({ ipam }) =>
    resolvePools(ipam).map((pool) => ({
      subnet: `${pool.subnet}`,
      range: formatPool(pool),
      shared: registersOf(ipam, pool),
    })),

  sharedRanges(own) {
    const ipam = sharedIpam(own);
    // There is no attachment.
    const setting = { ...emptySetting, ipam };
    const backend = lazily(() => openBackend(setting, operatorsPatienceMs));
    return resolvePools(ipam).map((pool) => ({
      subnet: `${pool.subnet}`,
      range: formatPool(pool),
      gateway: pool.gateway && `${pool.gateway}`,
      capacity: Number(capacityOf(pool)),
      countUsed: async () => (await backend()).countUsed(pool),
    }));
  },

  async leftBehind({ name: network, ...own }, named, environment) {
    const node = named.toLowerCase();
    const isThisNode = node === nodeName(environment);
    const owner = { ...emptySetting.owner, node, network };
    const backend = await openBackend({ ...emptySetting, ipam: sharedIpam(own), owner });
    // Another host may have had this name.
    const left = await backend.leftBehind(isThisNode);
    if (isThisNode && left.length === 0)
      throw new NodePresentError(
        `Node "${named}" is this one. Run "cni gc ${network}", which keeps what lives`,
      );
    return left;
  },

  async add(call) {
    const setting = settingOf(call);
    const { ipam, owner } = setting;
    refuse(...routeProblems(ipam.routes));
    const backend = await openBackend(setting);
    const { sources, fixed } = requestsOf(call, ipam, await backend.pools());
    // Fixed addresses are not reserved.
    const addresses = sources.length > 0 ? await reserve(call, backend, owner, sources) : [];
    const ips = addresses.map((address, i) => configOf(sources[i]!.pool, address));
    return { ...emptyResult(), ips: [...ips, ...fixed], routes: ipam.routes ?? [], dns: ipam.dns ?? {} };
  },

  async del(call) {
    const setting = settingOf(call);
    const { ipam, owner } = setting;
    // The flat file that named it may have gone while pods run.
    if (!ipam.etcd_host && !ipam.kubernetes?.kubeconfig) {
      const then = rememberHeld(owner)
        ? 'the addresses are released by the next call'
        : 'GC then releases the addresses';
      return call.warn(
        `"ipam" has no "etcd_host" and no "kubernetes.kubeconfig". Set again the one that it had: ${then}`,
      );
    }
    const backend = await openBackend(setting);
    await releaseOrRemember(call, backend, backend.releaseOf(call.prevResult && addressesOf(call)));
  },

  async check(call) {
    requirePrevResult(call);
    const backend = await openBackend(settingOf(call));
    await backend.check(addressesOf(call));
  },

  async status(call) {
    try {
      const backend = await openBackend(settingOf(call));
      await backend.probe();
      await tryWorkOff(call, backend);
      await announceNode(call, backend);
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
    const backend = await openBackend(settingOf(call));
    await tryWorkOff(call, backend);
    const valid = new Set(call.validAttachments.map(attachmentKey));
    await backend.collect(
      (owner) => valid.has(attachmentKey(owner)),
      (message) => call.warn(message),
    );
  },
});

/** A setting without an attachment. */
const emptySetting = {
  owner: { node: '', network: '', containerId: '', ifname: '' },
  identity: '',
  podref: '',
};

/** @throws Error for an invalid configuration. */
function settingOf(call: WhereaboutsCall): Setting {
  return {
    ipam: sharedIpam(call.config),
    owner: { node: nodeName(call.context.environment), ...call.attachment },
    identity: identityOf(call),
    podref: podrefOf(call),
  };
}

/** Reserves an address of each source; they are released if the call fails. */
async function reserve(
  call: WhereaboutsCall,
  backend: Backend,
  owner: Owner,
  sources: readonly Source[],
): Promise<readonly Address[]> {
  await new PendingReleases(backend.directory).cancel(owner);
  const [{ addresses, isNew }] = await Promise.all([
    allocate(call, backend, sources),
    announceNode(call, backend),
  ]);
  if (isNew)
    call.undo(`release ${addresses.join(' and ')}`, () =>
      releaseOrRemember(call, backend, backend.releaseOf(addresses)),
    );
  return addresses;
}

/** Allocates addresses. If it fails, those that the attachment may have got all the same are released. */
async function allocate(
  call: WhereaboutsCall,
  backend: Backend,
  sources: readonly Source[],
): ReturnType<Backend['allocate']> {
  let isUncertain = false;
  try {
    return await backend.allocate(sources, () => {
      isUncertain = true;
    });
  } catch (error) {
    const one = isUncertain && backend.releaseOf(undefined);
    // ADD has waited long enough for a backend that does not answer.
    if (one && backend.isFinal(error)) remember(call, backend, one, error);
    else if (one) await releaseOrRemember(call, backend, one);
    throw error;
  }
}

/**
 * The backend that is configured: etcd if both are, as flat files of whereabouts always name a kubeconfig.
 * @param patienceMs how long a request may take, if not as long as usual.
 */
async function openBackend(setting: Setting, patienceMs?: number): Promise<Backend> {
  const { ipam } = setting;
  if (ipam.etcd_host || !ipam.kubernetes?.kubeconfig) return new EtcdBackend(setting, patienceMs);
  const { KubernetesBackend } = await import('./whereabouts/kubernetes/backend.ts');
  return new KubernetesBackend(setting, ipam.kubernetes.kubeconfig, patienceMs);
}

/** The configured members of etcd, for display; "" for none. @throws Error as {@link endpointsOf}. */
function membersOf(ipam: Ipam): string {
  return ipam.etcd_host
    ? endpointsOf(ipam)
        .map(({ origin }) => origin)
        .join(', ')
    : '';
}

/** Names of nodes are case-insensitive, as host names are. */
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

function addressesOf({ prevResult }: WhereaboutsCall): Address[] {
  return (prevResult?.ips ?? []).map(({ address }) => address.address);
}

/**
 * Announces that the node is alive. An ADD does not fail if that fails: an operator hears of it when the node
 * is collected.
 */
async function announceNode(call: WhereaboutsCall, backend: Backend): Promise<void> {
  await backend.announce().catch(({ message }: Error) => call.warn(message));
}

/** While the backend does not answer, the release waits on the node: a pod can always be torn down. */
async function releaseOrRemember(call: WhereaboutsCall, backend: Backend, one: Release): Promise<void> {
  try {
    await backend.release(one, (message) => call.warn(message));
  } catch (error) {
    return remember(call, backend, one, error);
  }
  await tryWorkOff(call, backend);
}

/** Leaves a release to the next call. @param error why it cannot be done now. */
function remember(call: WhereaboutsCall, backend: Backend, one: Release, error: unknown): void {
  new PendingReleases(backend.directory).remember({ ...one, cluster: backend.cluster });
  const { message, details } = error as CniError;
  call.warn(
    `The addresses are released by the next call that reaches ${backend.name}. ${message}${details ? `: ${details}` : ''}`,
  );
}

/** Carries out pending releases. The call does not fail when one of them does. */
async function tryWorkOff(call: WhereaboutsCall, backend: Backend): Promise<void> {
  const warn = (message: string) => call.warn(message);
  await workOff(backend, warn).catch(({ message }: Error) => warn(message));
}

/** Does something when it is first asked for. */
function lazily<T>(make: () => T): () => T {
  let made: T | undefined;
  return () => (made ??= make());
}
