/** The addresses that host-local has handed out on this host, compared with its ranges. */

import { statSync } from 'node:fs';
import { dataDirOf, type HostLocalConfig, hostLocalShape, rangeSetsOf } from '../ipam/host-local/config.ts';
import { capacity, formatSet } from '../ipam/host-local/ranges.ts';
import {
  countTaken,
  describeProblems,
  type Reservation,
  seenReservations,
} from '../ipam/host-local/reservations.ts';
import type { AttachmentId } from '../lib/attachment.ts';
import { netConfShape } from '../lib/cni/config.ts';
import { decode, object } from '../lib/cni/schema.ts';
import { eachTime, type Once } from '../lib/kernel/sharing.ts';
import { ipamTypeOf, type NetworkList, wholeConfig } from './libcni/conflist.ts';

/** What host-local has on disk for a network. */
export interface NetworkReservations {
  /** Addresses and who holds them. */
  readonly held: readonly HeldAddress[];
  /** How far the range sets are used up. Sets that are not valid are left out. */
  readonly ranges: readonly RangeUse[];
  /** What cannot be read. */
  readonly problems: readonly string[];
}

/** An address that an attachment holds. */
export interface HeldAddress {
  readonly owner: AttachmentId;
  readonly ip: string;
  /** When it was reserved; undefined if it no longer is. */
  since(): Date | undefined;
}

/** How far a network's range set is used up. */
export interface RangeUse {
  readonly network: string;
  /** Its ranges, as "10.1.0.1-10.1.0.254". */
  readonly range: string;
  /** The subnets that its ranges are in, as "10.1.0.0/24". */
  readonly subnets: readonly string[];
  /** Addresses by which containers reach other networks. They are never handed out. */
  readonly gateways: readonly string[];
  /** Addresses that are reserved. */
  readonly used: number;
  /** How many addresses it can hand out; for IPv6, this may exceed what a number can represent exactly. */
  readonly capacity: number;
}

/** True if the next ADD finds no address. */
export function isFull({ used, capacity }: RangeUse): boolean {
  return used >= capacity;
}

/**
 * Looks at a network's reservations. Nothing is locked or changed.
 * @param once shares what is seen with others that look at the host at the same time.
 */
export function reservationsOf(network: NetworkList, once: Once = eachTime): NetworkReservations {
  const all: NetworkReservations[] = [];
  const seen = new Set<string>();
  for (const plugin of network.plugins.filter(({ config }) => ipamTypeOf(config) === 'host-local')) {
    let config: HostLocalConfig;
    try {
      config = decode(
        object({ ...netConfShape, ...hostLocalShape }),
        wholeConfig(plugin, network),
      ) as HostLocalConfig;
    } catch {
      continue; // "cni validate" reports what is wrong.
    }
    const dataDir = dataDirOf(config);
    if (!seen.has(dataDir)) all.push(readDirectory(dataDir, network.name, config, once));
    seen.add(dataDir);
  }
  return {
    held: all.flatMap(({ held }) => held),
    ranges: all.flatMap(({ ranges }) => ranges),
    problems: all.flatMap(({ problems }) => problems),
  };
}

function readDirectory(
  dataDir: string,
  network: string,
  config: HostLocalConfig,
  once: Once,
): NetworkReservations {
  let found: readonly Reservation[];
  try {
    found = seenReservations(dataDir, network, once).all;
  } catch (error) {
    return { held: [], ranges: [], problems: [(error as Error).message] };
  }
  const directory = `${dataDir}/${network}`;
  const problem = describeProblems(directory, found);
  return {
    held: found.flatMap(({ address, owner }) => {
      if (!owner) return [];
      const since = () => statSync(`${directory}/${address}`, { throwIfNoEntry: false })?.mtime;
      return [{ owner, ip: `${address}`, since }];
    }),
    ranges: rangeUse(network, config, found),
    problems: problem === undefined ? [] : [problem],
  };
}

function rangeUse(network: string, config: HostLocalConfig, found: readonly Reservation[]): RangeUse[] {
  try {
    return rangeSetsOf(config).map((set) => ({
      network,
      range: formatSet(set),
      subnets: distinct(set.map(({ subnet }) => `${subnet.network}`)),
      gateways: distinct(set.map(({ gateway }) => `${gateway}`)),
      used: countTaken(set, found),
      capacity: Number(capacity(set)),
    }));
  } catch {
    return []; // There are none if the runtime passes them; otherwise "cni validate" reports what is wrong.
  }
}

function distinct(texts: readonly string[]): string[] {
  return [...new Set(texts)];
}
