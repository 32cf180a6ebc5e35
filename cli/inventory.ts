/**
 * What networks and attachments a host has: from the result cache, host-local's files, the firewall and the
 * kernel, held against one another.
 */

import { basename, join } from 'node:path';
import { waitForEnd } from '../agent/pipe.ts';
import { type AttachmentId, attachmentKey } from '../lib/attachment.ts';
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
import { presentNamespaces } from './inventory/namespaces.ts';
import type { CachedAttachment } from './libcni/cache.ts';
import { type NetworkList, networkFiles, networkFromCache, readNetworkFile } from './libcni/conflist.ts';
import { listRecords } from './records.ts';
import { type HeldAddress, type RangeUse, reservationsOf } from './reservations.ts';
import { type RuleOwner, ruleOwners } from './rules.ts';

/** A port of the host that leads to a container. */
export interface PublishedPort {
  hostPort: number;
  containerPort: number;
  protocol: string;
}

/** The name of a pod, or of a container outside Kubernetes. */
export interface PodName {
  /** Of Kubernetes; "" outside it. */
  namespace: string;
  name: string;
}

/** A container's connection to a network, as far as anything on the host tells. */
export interface HostAttachment extends AttachmentId {
  /** What its runtime calls it, where it says so. */
  pod: PodName | undefined;
  /** Path of the sandbox's namespace, "" when nobody recorded it. */
  netns: string;
  /** Without prefix lengths. */
  ips: string[];
  ports: PublishedPort[];
  /** Interfaces of the host that belong to it. */
  hostInterfaces: string[];
  /** When ADD ended. */
  since: Date | undefined;
  /** Why it no longer belongs to a container; empty for one that is in order. */
  orphaned: string[];
}

/** What a host has. */
export interface Inventory {
  /** Those that are configured, and those that only the result cache still knows. */
  networks: NetworkList[];
  attachments: HostAttachment[];
  /** What the result cache has of them, by {@link attachmentKey}. */
  records: ReadonlyMap<string, CachedAttachment>;
  /** How far the address ranges of the networks are used up. */
  ranges: RangeUse[];
  readonly links: readonly Link[];
  readonly addresses: readonly InterfaceAddress[];
  /** Files that cannot be used, and why. */
  problems: string[];
}

/**
 * Looks at the host. Nothing is changed, and nothing is locked.
 * @param configDir of the networks. @param cacheDir above `results`.
 * @param once shares what is seen with others that look at the host at the same time.
 * @throws CommandError when this process does not see the network namespaces of the host's containers.
 */
export async function takeInventory(
  configDir: string,
  cacheDir: string,
  once = lookOnce(),
): Promise<Inventory> {
  const problems: string[] = [];
  const networks = new Map<string, NetworkList>();
  // The first file of a name counts, as for runtimes.
  for (const network of readNetworks(configDir, problems).reverse()) networks.set(network.name, network);
  const attachments = new Map<string, HostAttachment>();
  const records = new Map<string, CachedAttachment>();
  // Newest first: a network that is no longer configured gets the configuration of its last attachment.
  const entries = listRecords(cacheDir).sort((a, b) => +b.since - +a.since);
  // Beside what follows. Not earlier: what is detached meanwhile would have rules, and no record.
  const owners = ruleOwners(new Programs({ PATH: process.env.PATH }, { waitForEnd, together: alone, once }));
  for (const { attachment, since, error } of entries) {
    if (error) problems.push(error.message);
    if (!attachment) continue;
    const retired = networks.has(attachment.network) ? undefined : networkFromCache(attachment);
    if (retired) networks.set(retired.name, retired);
    const { network, containerId, ifname, netns, capabilityArgs } = attachment;
    records.set(attachmentKey(attachment), attachment);
    const result = readResult(attachment.result, once);
    attachments.set(attachmentKey(attachment), {
      ...{ network, containerId, ifname, netns, since, orphaned: [] },
      pod: podOf(attachment),
      ips: (result?.ips ?? []).map(({ address }) => `${address.address}`),
      ports: portsOf(capabilityArgs),
      hostInterfaces: (result?.interfaces ?? []).filter(({ sandbox }) => !sandbox).map(({ name }) => name),
    });
  }
  const recorded = [...attachments.values()].filter(({ netns }) => netns !== '');
  const present = presentNamespaces(
    recorded.map(({ netns }) => netns),
    join(cacheDir, 'results'),
  );
  for (const { netns, orphaned } of recorded)
    if (!present.has(netns)) orphaned.push('its network namespace is gone');
  const reservations = [...networks.values()].map((network) => reservationsOf(network, once));
  for (const { held } of reservations) addReservations(attachments, held);
  addRuleOwners(attachments, networks, await owners);
  return {
    networks: [...networks.values()],
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
    problems: [...problems, ...reservations.flatMap((one) => one.problems)],
  };
}

/** What host-local has given away: to attachments that are known, and to others. */
function addReservations(
  attachments: Map<string, HostAttachment>,
  reservations: readonly HeldAddress[],
): void {
  for (const { owner, ip, since } of reservations) {
    const known =
      attachments.get(attachmentKey(owner)) ??
      // Files of very old versions have no interface name.
      (owner.ifname === ''
        ? [...attachments.values()].find((one) => containerKey(one) === containerKey(owner))
        : undefined);
    if (known) {
      if (!known.ips.includes(ip)) known.ips.push(ip);
    } else
      attachments.set(attachmentKey(owner), {
        ...orphan(owner, 'address reserved, but no runtime knows of it'),
        ips: [ip],
        since: since(),
      });
  }
}

/** Whom the firewall has rules of. Those of networks that nothing here knows are somebody else's affair. */
function addRuleOwners(
  attachments: Map<string, HostAttachment>,
  networks: ReadonlyMap<string, NetworkList>,
  owners: readonly RuleOwner[],
): void {
  const known = Map.groupBy(attachments.values(), containerKey);
  for (const owner of owners) {
    if (!networks.has(owner.network)) continue;
    if (known.get(containerKey(owner))?.some(({ ifname }) => !owner.ifname || owner.ifname === ifname))
      continue;
    const id = { ifname: 'eth0', ...owner };
    attachments.set(attachmentKey(id), orphan(id, 'firewall rules remain, but no runtime knows of it'));
  }
}

/** What the attachments of a container to one network have in common. */
function containerKey({ network, containerId }: Pick<AttachmentId, 'network' | 'containerId'>): string {
  return `${network} ${containerId}`;
}

function orphan(id: AttachmentId, why: string): HostAttachment {
  return {
    ...id,
    pod: undefined,
    netns: '',
    ips: [],
    ports: [],
    hostInterfaces: [],
    since: undefined,
    orphaned: [why],
  };
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
 * Names that the runtime gives in CNI_ARGS: kubelets' runtimes both of them, podman only the container's, as
 * K8S_POD_NAME.
 */
export function podOf({ args }: Pick<CachedAttachment, 'args'>): PodName | undefined {
  const { K8S_POD_NAMESPACE: namespace = '', K8S_POD_NAME: name } = Object.fromEntries(args);
  return name ? { namespace, name } : undefined;
}

/**
 * "default/web-1", "web" outside Kubernetes, the name of a namespace that `cni add` or cnitool attached, or
 * else the first twelve characters of the container ID.
 */
export function displayName(one: Pick<HostAttachment, 'pod' | 'containerId' | 'netns'>): string {
  return givenName(one) ?? one.containerId.slice(0, 12);
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

/** Whether an operator means an attachment of this pod: by its name, with or without namespace, or its ID. */
export function isNamed(one: HostAttachment, name: string): boolean {
  return displayName(one) === name || one.pod?.name === name || one.containerId.startsWith(name);
}

/** Runtimes write the keys in their own case. */
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
