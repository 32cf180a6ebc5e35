/**
 * What networks and attachments a host has, according to the result cache, host-local's files, the firewall
 * and the kernel, compared with one another.
 */

import { basename, join } from 'node:path';
import { waitForEnd } from '../agent/pipe.ts';
import { attachmentKey } from '../lib/attachment.ts';
import { type Result, seenResult } from '../lib/cni/result.ts';
import { getKey } from '../lib/cni/schema.ts';
import { alone } from '../lib/group-commit.ts';
import { type InterfaceAddress, listAddresses } from '../lib/kernel/address.ts';
import type { Link } from '../lib/kernel/link.ts';
import { Programs } from '../lib/kernel/programs.ts';
import { openRouteSocket } from '../lib/kernel/route-socket.ts';
import { seenLinks } from '../lib/kernel/seen-links.ts';
import { lookOnce, type Once } from '../lib/kernel/sharing.ts';
import { isObject } from '../lib/object.ts';
import type { HostAttachment, PodName, PublishedPort } from './inventory/attachment.ts';
import { findHidden, type Hidden } from './inventory/hidden.ts';
import { findNamespaces } from './inventory/namespaces.ts';
import { Unrecorded } from './inventory/unrecorded.ts';
import type { CachedAttachment } from './libcni/cache.ts';
import {
  findNetworkBelow,
  isLoopback,
  type NetworkList,
  networkFiles,
  networkFromCache,
  readNetworkFile,
} from './libcni/conflist.ts';
import { listRecords, type RecordEntry, savedBy } from './records.ts';
import { type RangeUse, reservationsOf } from './reservations.ts';
import { ruleOwners } from './rules.ts';

export type { HostAttachment, PublishedPort } from './inventory/attachment.ts';

/** What a host has. */
export interface Inventory {
  /**
   * Those that are configured, and those that only records know of, whose file is ""; without the loopback
   * networks of runtimes.
   */
  networks: NetworkList[];
  /** Names of networks that plugins attach pods to; their configurations need not be in any file. */
  delegated: ReadonlySet<string>;
  /** Without those to a network that has only `loopback`, unless they are orphaned. */
  attachments: HostAttachment[];
  /** Their records in the result cache, by {@link attachmentKey}. */
  records: ReadonlyMap<string, CachedAttachment>;
  /** How far the address ranges of the networks are used up. */
  ranges: RangeUse[];
  readonly links: readonly Link[];
  readonly addresses: readonly InterfaceAddress[];
  /** Files and firewalls that cannot be looked at, and why. */
  problems: string[];
  /** Those of {@link problems} that are about firewalls: attachments may have rules there. */
  ruleProblems: readonly string[];
  /** Why there may be living attachments that are not listed above; empty when all are known. */
  unknown: string[];
  /** Why there may be living attachments among those listed above that no record names. */
  hidden: Hidden[];
}

/** Why it may be incomplete, or name living attachments that no record names; each reason once. */
export function doubtsOf({ problems, unknown, hidden }: Inventory): Set<string> {
  return new Set([...problems, ...unknown, ...hidden.map(({ message }) => message)]);
}

/**
 * Looks at the host. Nothing is changed, and nothing is locked.
 * @param configDir of the networks. @param cacheDir above `results`.
 * @param once shares what is seen with others that look at the host at the same time.
 * @throws CommandError when this process cannot see the network namespaces of the host's containers.
 */
export async function takeInventory(
  configDir: string,
  cacheDir: string,
  once = lookOnce(),
): Promise<Inventory> {
  const problems: string[] = [];
  const networks = new Map<string, NetworkList>();
  // Of several files with the same name of network, the first counts, as for runtimes.
  for (const network of readNetworks(configDir, problems).reverse()) networks.set(network.name, network);
  const attachments = new Map<string, HostAttachment>();
  const records = new Map<string, CachedAttachment>();
  const toLoopback = new Set<string>();
  // Newest first: a network that is no longer configured gets the configuration of its last attachment.
  const entries = listRecords(cacheDir).sort((a, b) => +b.since - +a.since);
  // Runs beside what follows, but not earlier: what is detached meanwhile would have rules but no record.
  const seenRules = ruleOwners(
    new Programs({ PATH: process.env.PATH }, { waitForEnd, together: alone, once }),
  );
  for (const { attachment, since, error } of entries) {
    if (error) problems.push(error.message);
    if (!attachment) continue;
    const own = recordedNetwork(attachment, once);
    if (own && isLoopback(own)) toLoopback.add(attachmentKey(attachment));
    if (!networks.has(attachment.network)) {
      const unlisted = findNetworkBelow(configDir, attachment.network) ?? own;
      if (unlisted) networks.set(unlisted.name, unlisted);
    }
    const { network, containerId, ifname, netns, capabilityArgs } = attachment;
    records.set(attachmentKey(attachment), attachment);
    const result = readResult(attachment.result, once);
    attachments.set(attachmentKey(attachment), {
      network,
      containerId,
      ifname,
      netns,
      since,
      orphaned: [],
      pod: podOf(attachment),
      ips: (result?.ips ?? []).map(({ address }) => `${address.address}`),
      ports: portsOf(capabilityArgs),
      hostInterfaces: (result?.interfaces ?? []).filter(({ sandbox }) => !sandbox).map(({ name }) => name),
    });
  }
  const recorded = [...attachments.values()].filter(({ netns }) => netns !== '');
  const directory = join(cacheDir, 'results');
  const namespaces = findNamespaces(
    recorded.map(({ netns }) => netns),
    directory,
  );
  for (const one of recorded) {
    const found = namespaces.get(one.netns);
    if (found !== 'present') one.orphaned.push('its network namespace is gone');
    // No plugin must mistake the other namespace for the container's.
    if (found === 'foreign') one.netns = '';
  }
  for (const key of toLoopback) if (attachments.get(key)!.orphaned.length === 0) attachments.delete(key);
  const reservations = [...networks.values()].map((network) => reservationsOf(network, once));
  const unrecorded = new Unrecorded(attachments, entries);
  for (const { held } of reservations) unrecorded.addReservations(held);
  const rules = await seenRules;
  unrecorded.addRuleOwners(rules.owners, (name) => networks.has(name));
  const hidden = await findHidden({
    networks: [...networks.values()],
    attachments: [...attachments.values()],
    records,
    // A record that was made by hand does not tell where the runtime keeps its own.
    ofRuntime: recorded.filter(
      ({ containerId, orphaned }) => orphaned.length === 0 && !isByHand(containerId),
    ),
    directory,
    links: () => seenLinks(once).all,
  });
  return {
    networks: [...networks.values()].filter((one) => one.file !== '' || !isLoopback(one)),
    delegated: new Set(entries.flatMap((one) => (one.isSaved ? (one.attachment?.network ?? []) : []))),
    attachments: [...attachments.values()].sort((a, b) => attachmentKey(a).localeCompare(attachmentKey(b))),
    records,
    ranges: reservations.flatMap(({ ranges }) => ranges),
    get links() {
      return seenLinks(once).all;
    },
    get addresses() {
      return once('addresses of the host', () => {
        using socket = openRouteSocket();
        return listAddresses(socket);
      });
    },
    problems: [...problems, ...reservations.flatMap((one) => one.problems), ...rules.problems],
    ruleProblems: rules.problems,
    unknown: unknownAmong(entries, attachments),
    hidden,
  };
}

/** The network of a record. It is shared, as most attachments of a network have the same configuration. */
export function recordedNetwork(record: CachedAttachment, once: Once): NetworkList | undefined {
  return once(`configuration ${record.network} ${record.config}`, () => networkFromCache(record));
}

/** Which records are damaged, and for which living containers the additional networks are no longer saved. */
function unknownAmong(
  entries: readonly RecordEntry[],
  attachments: ReadonlyMap<string, HostAttachment>,
): string[] {
  const saved = new Set(entries.flatMap((one) => (one.isSaved ? (one.attachment?.containerId ?? []) : [])));
  return entries.flatMap(({ attachment, isSaved, error }) => {
    if (error) return [error.message];
    if (isSaved || !attachment || saved.has(attachment.containerId)) return [];
    if (savedBy(attachment).length === 0) return [];
    const one = attachments.get(attachmentKey(attachment))!;
    if (one.orphaned.length > 0) return [];
    return [
      `Nothing is saved of the networks of ${displayName(one)} (container "${one.containerId}"), which network "${one.network}" has attached it to. Delete the container and add it again`,
    ];
  });
}

function readNetworks(directory: string, problems: string[]): NetworkList[] {
  let files: string[];
  try {
    files = networkFiles(directory);
  } catch (error) {
    problems.push((error as Error).message);
    return [];
  }
  return files.flatMap((file) => {
    try {
      return [readNetworkFile(file)];
    } catch (error) {
      problems.push(`"${file}" cannot be used: ${(error as Error).message}`);
      return [];
    }
  });
}

function readResult(value: Record<string, unknown> | undefined, once: Once): Result | undefined {
  try {
    return value && seenResult(value, typeof value.cniVersion === 'string' ? value.cniVersion : '', once);
  } catch {
    return undefined;
  }
}

/**
 * The names that the runtime gives in CNI_ARGS: Kubernetes' runtimes give both, podman only that of the
 * container, as K8S_POD_NAME.
 */
export function podOf({ args }: Pick<CachedAttachment, 'args'>): PodName | undefined {
  const { K8S_POD_NAMESPACE: namespace = '', K8S_POD_NAME: name } = Object.fromEntries(args);
  return name ? { namespace, name } : undefined;
}

/**
 * "default/web-1", "web" outside Kubernetes, the name of a namespace that `cni add` or cnitool attached, or
 * else the beginning of the container ID.
 */
export function displayName(one: Pick<HostAttachment, 'pod' | 'containerId' | 'netns'>): string {
  return givenName(one) ?? shortId(one.containerId);
}

/** The first twelve characters of a container ID, after the namespace with which nerdctl begins it. */
export function shortId(containerId: string): string {
  const [namespace = ''] = /^.+-(?=[0-9a-f]{64}$)/.exec(containerId) ?? [];
  return containerId.slice(0, namespace.length + 12);
}

/** As {@link displayName}. @returns undefined when nobody has given the container a name. */
export function givenName({
  pod,
  containerId,
  netns,
}: Pick<HostAttachment, 'pod' | 'containerId' | 'netns'>): string | undefined {
  if (pod) return pod.namespace ? `${pod.namespace}/${pod.name}` : pod.name;
  return (isByHand(containerId) && basename(netns)) || undefined;
}

/** Whether the container ID is one that `cni add` or cnitool made from the path of a namespace. */
export function isByHand(containerId: string): boolean {
  return containerId.startsWith('cnitool-');
}

/** The published ports in capability arguments. Runtimes differ in the case of the keys. */
function portsOf(capabilityArgs: Readonly<Record<string, unknown>>): PublishedPort[] {
  const list = getKey(capabilityArgs, 'portMappings');
  return (Array.isArray(list) ? list : []).flatMap((one) => {
    if (!isObject(one)) return [];
    const [hostPort, containerPort, protocol] = ['hostPort', 'containerPort', 'protocol'].map((key) =>
      getKey(one, key),
    );
    return typeof hostPort === 'number' && typeof containerPort === 'number'
      ? [{ hostPort, containerPort, protocol: typeof protocol === 'string' ? protocol : 'tcp' }]
      : [];
  });
}
