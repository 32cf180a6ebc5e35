/** What networks and attachments a node has: from the result cache, host-local's files and the kernel, held against one another. */

import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { parseResult, type Result } from '../lib/cni/result.ts';
import { getKey, isObject } from '../lib/cni/schema.ts';
import { Address } from '../lib/ip.ts';
import { type InterfaceAddress, listAddresses } from '../lib/kernel/address.ts';
import { type Link, listLinks } from '../lib/kernel/link.ts';
import { Netns } from '../lib/kernel/netns.ts';
import { openRouteSocket } from '../lib/kernel/route-socket.ts';
import { dataDirOf, ipamTypeOf } from './addresses.ts';
import { listCache } from './libcni/cache.ts';
import { type NetworkList, networkFiles, readNetworkFile } from './libcni/conflist.ts';

/** A port of the node that leads to a container. */
export interface PublishedPort {
  hostPort: number;
  containerPort: number;
  protocol: string;
}

/** A container's connection to a network, as far as anything on the node tells. */
export interface NodeAttachment {
  network: string;
  containerId: string;
  ifname: string;
  /** Path of the sandbox's namespace, "" when nobody recorded it. */
  netns: string;
  /** Without prefix lengths. */
  ips: string[];
  ports: PublishedPort[];
  /** Interfaces of the node that belong to it. */
  hostInterfaces: string[];
  /** When it was made. */
  since: Date | undefined;
  /** Why it belongs to no container any more; empty for one that is in order. */
  orphaned: string[];
}

/** What a node has. */
export interface Inventory {
  networks: NetworkList[];
  attachments: NodeAttachment[];
  links: Link[];
  addresses: InterfaceAddress[];
  /** Files that cannot be used, and why. */
  problems: string[];
}

/**
 * Looks at the node. Nothing is changed, and nothing is locked.
 * @param configDir of the networks. @param cacheDir above `results`.
 */
export function takeInventory(configDir: string, cacheDir: string): Inventory {
  const problems: string[] = [];
  const networks = readNetworks(configDir, problems);
  const attachments = new Map<string, NodeAttachment>();
  for (const { attachment, since, error } of listCache(cacheDir)) {
    if (error) problems.push(error.message);
    if (!attachment) continue;
    const result = readResult(attachment.result);
    attachments.set(keyOf(attachment), {
      network: attachment.network,
      containerId: attachment.containerId,
      ifname: attachment.ifname,
      netns: attachment.netns,
      ips: (result?.ips ?? []).map(({ address }) => `${address.address}`),
      ports: portsOf(attachment.capabilityArgs),
      hostInterfaces: (result?.interfaces ?? []).filter(({ sandbox }) => !sandbox).map(({ name }) => name),
      since,
      orphaned: [],
    });
  }
  for (const reservation of reservations(networks)) {
    const known = attachments.get(keyOf(reservation));
    if (known) {
      if (!known.ips.includes(reservation.ip)) known.ips.push(reservation.ip);
    } else
      attachments.set(keyOf(reservation), {
        ...reservation,
        netns: '',
        ips: [reservation.ip],
        ports: [],
        hostInterfaces: [],
        orphaned: ['address reserved, but no runtime knows of it'],
      });
  }
  for (const attachment of attachments.values())
    if (attachment.netns && !isNamespace(attachment.netns))
      attachment.orphaned.push('its network namespace is gone');
  using socket = openRouteSocket();
  return {
    networks,
    attachments: [...attachments.values()].sort((a, b) => keyOf(a).localeCompare(keyOf(b))),
    links: listLinks(socket),
    addresses: listAddresses(socket),
    problems,
  };
}

function keyOf({
  network,
  containerId,
  ifname,
}: {
  network: string;
  containerId: string;
  ifname: string;
}): string {
  return `${network}\0${containerId}\0${ifname}`;
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

function readResult(value: Record<string, unknown> | undefined): Result | undefined {
  try {
    return value && parseResult(value, typeof value.cniVersion === 'string' ? value.cniVersion : '');
  } catch {
    return undefined;
  }
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

interface Reservation {
  network: string;
  containerId: string;
  ifname: string;
  ip: string;
  since: Date;
}

/** What host-local has given away, of every network that uses it. */
function reservations(networks: readonly NetworkList[]): Reservation[] {
  const directories = new Set(
    networks.flatMap(({ name, plugins }) =>
      plugins
        .filter(({ config }) => ipamTypeOf(config) === 'host-local')
        .map(({ config }) => `${name}\0${join(dataDirOf(config), name)}`),
    ),
  );
  return [...directories].flatMap((entry) => {
    const [network = '', directory = ''] = entry.split('\0');
    return namesIn(directory).flatMap((ip): Reservation[] => {
      if (!Address.tryParse(ip)) return [];
      try {
        const file = join(directory, ip);
        const [containerId = '', ifname = ''] = readFileSync(file, 'utf8').trim().split('\r\n');
        return [{ network, containerId, ifname, ip, since: statSync(file).mtime }];
      } catch {
        return []; // Released meanwhile.
      }
    });
  });
}

function namesIn(directory: string): string[] {
  try {
    return readdirSync(directory);
  } catch {
    return [];
  }
}

function isNamespace(path: string): boolean {
  const netns = Netns.openIfPresent(path);
  netns?.close();
  return netns !== undefined;
}
