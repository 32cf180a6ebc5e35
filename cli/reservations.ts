/** The addresses that host-local has given away on this host, read from its files and held against its ranges. */

import { readdirSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import {
  capacity,
  formatSet,
  type RangeSet,
  rangeSetsSchema,
  rangeShape,
  resolveRangeSets,
  setContains,
} from '../ipam/host-local/ranges.ts';
import type { AttachmentId } from '../lib/attachment.ts';
import { decode, object, string } from '../lib/cni/schema.ts';
import { Address } from '../lib/ip.ts';
import { ipamTypeOf } from './addresses.ts';
import type { NetworkList, PluginEntry } from './libcni/conflist.ts';

/** An address that an attachment holds. */
export interface Reservation extends AttachmentId {
  readonly ip: string;
  readonly since: Date;
}

/** How far a network's range set is used up. */
export interface RangeUse {
  readonly network: string;
  /** Its ranges, as "10.1.0.1-10.1.0.254". */
  readonly range: string;
  /** Addresses that are reserved. */
  readonly used: number;
  /** Addresses that it can give away; more than a number can count are given as the largest safe one. */
  readonly capacity: number;
}

/** True if the next ADD finds no address. */
export function isFull({ used, capacity }: RangeUse): boolean {
  return used >= capacity;
}

const configuration = object({
  ipam: object({ ...rangeShape, ranges: rangeSetsSchema, dataDir: string() }),
});

/** Everything that host-local has reserved for a network. */
export function reservationsOf({ name: network, plugins }: NetworkList): Reservation[] {
  const directories = new Set(plugins.filter(usesHostLocal).map((plugin) => directoryOf(network, plugin)));
  return [...directories].flatMap((directory) =>
    addressesIn(directory).flatMap((ip): Reservation[] => {
      try {
        const file = join(directory, ip);
        const [containerId = '', ifname = ''] = readFileSync(file, 'utf8').trim().split('\r\n');
        return [{ network, containerId, ifname, ip, since: statSync(file).mtime }];
      } catch {
        return []; // Released meanwhile.
      }
    }),
  );
}

/** How far each range set of a network is used up. Sets that are not valid are left out. */
export function rangeUse({ name: network, plugins }: NetworkList): RangeUse[] {
  return plugins.filter(usesHostLocal).flatMap((plugin) => {
    const reserved = addressesIn(directoryOf(network, plugin)).map((ip) => Address.parse(ip));
    return rangeSetsOf(plugin).map((set) => {
      const size = capacity(set);
      const most = BigInt(Number.MAX_SAFE_INTEGER);
      return {
        network,
        range: formatSet(set),
        used: reserved.filter((address) => setContains(set, address)).length,
        capacity: Number(size < most ? size : most),
      };
    });
  });
}

function usesHostLocal({ config }: PluginEntry): boolean {
  return ipamTypeOf(config) === 'host-local';
}

/** Where host-local keeps the reservations of a network. */
function directoryOf(network: string, { config }: PluginEntry): string {
  let dataDir: string | undefined;
  try {
    dataDir = decode(configuration, config).ipam?.dataDir;
  } catch {} // "cni validate" tells what is wrong.
  return join(dataDir || '/var/lib/cni/networks', network);
}

function rangeSetsOf({ config }: PluginEntry): RangeSet[] {
  try {
    const { ranges = [], ...flat } = decode(configuration, config).ipam ?? {};
    return resolveRangeSets([...(flat.subnet ? [[flat]] : []), ...ranges]);
  } catch {
    return [];
  }
}

function addressesIn(directory: string): string[] {
  try {
    return readdirSync(directory).filter((name) => Address.tryParse(name)?.toString() === name);
  } catch {
    return []; // Nothing was ever reserved.
  }
}
