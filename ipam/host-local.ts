/** host-local: gives addresses away from ranges, and remembers them in files on this node. */

import { existsSync, mkdirSync, rmdirSync } from 'node:fs';
import { dirname } from 'node:path';
import type { Call } from '../lib/cni/call.ts';
import { definePlugin } from '../lib/cni/plugin.ts';
import { emptyResult, type IPConfig, routeSchema } from '../lib/cni/result.ts';
import { array, type InferShape, object, string, withDefault } from '../lib/cni/schema.ts';
import { atLeast } from '../lib/cni/version.ts';
import { CniError, ErrorCode } from '../lib/errors.ts';
import { Address, Prefix } from '../lib/ip.ts';
import {
  candidates,
  capacity,
  formatSet,
  type RangeSet,
  rangeOf,
  rangeSetsSchema,
  rangeShape,
  resolveRangeSets,
  setContains,
} from './host-local/ranges.ts';
import { readResolvConf } from './host-local/resolv-conf.ts';
import { Store } from './host-local/store.ts';

const ips = array(string({ description: 'Address to ask for, with or without prefix length.' }));

const config = {
  ipam: withDefault(
    object({
      type: string(),
      ...rangeShape,
      ranges: rangeSetsSchema,
      routes: array(routeSchema, { description: 'Routes for the container.' }),
      dataDir: string({ description: 'Where reservations are kept; /var/lib/cni/networks by default.' }),
      resolvConf: string({ description: 'resolv.conf whose settings the container gets.' }),
    }),
    {},
  ),
  runtimeConfig: object({ ips, ipRanges: rangeSetsSchema }),
  args: object({ cni: object({ ips }) }),
};

type HostLocalCall = Call<InferShape<typeof config>>;

export const plugin = definePlugin({
  name: 'host-local',
  summary: 'Gives addresses away from ranges, and remembers them in files on this node.',
  role: 'ipam',
  config,

  add(call) {
    const sets = rangeSetsOf(call);
    const wanted = requestedAddresses(call);
    const { resolvConf, routes = [] } = call.config.ipam;
    const dns = resolvConf ? readResolvConf(resolvConf) : {};

    using store = openStore(call);
    const result = { ...emptyResult(), routes, dns };
    try {
      for (const [i, set] of sets.entries()) {
        const at = wanted.findIndex((address) => setContains(set, address));
        const [requested] = at < 0 ? [] : wanted.splice(at, 1);
        result.ips.push(
          requested ? takeRequested(store, call, set, i, requested) : takeNext(store, call, set, i),
        );
      }
      if (wanted.length > 0)
        throw new Error(
          `No range has the requested address ${wanted.join(', ')}. Ask for addresses within ${sets.map(formatSet).join(' and ')}`,
        );
    } catch (error) {
      store.release(
        call,
        result.ips.map(({ address }) => address.address),
      );
      throw error;
    }
    return result;
  },

  del(call) {
    using store = Store.openIfPresent(dataDirOf(call), call.config.name);
    store?.release(call);
  },

  check(call) {
    const sets = rangeSetsOf(call);
    using store = openStore(call);
    const own = store.addressesOf(call);
    if (own.length === 0)
      throw new Error(
        `No address of network "${call.config.name}" is reserved for container "${call.containerId}" and interface "${call.ifname}". Delete the container and add it again`,
      );
    for (const { address } of call.prevResult?.ips ?? [])
      if (
        sets.some((set) => setContains(set, address.address)) &&
        !own.some((mine) => mine.equals(address.address))
      )
        throw new Error(
          `Address ${address.address} is in use by container "${call.containerId}", but not reserved for it. Delete the container and add it again`,
        );
  },

  status(call) {
    const dataDir = dataDirOf(call);
    refuseUnwritable(dataDir);
    const sets = rangeSetsOf(call);
    using store = Store.openIfPresent(dataDir, call.config.name);
    const reserved = store?.reserved() ?? [];
    for (const set of sets) {
      const taken = reserved.filter(
        (address) => setContains(set, address) && !isGateway(set, address),
      ).length;
      if (BigInt(taken) >= capacity(set))
        throw new CniError(
          ErrorCode.NotAvailable,
          `All ${taken} addresses of ${formatSet(set)} are reserved. Delete containers, collect stale reservations with GC, or add a range to network "${call.config.name}"`,
        );
    }
  },

  gc(call) {
    using store = Store.openIfPresent(dataDirOf(call), call.config.name);
    const valid = new Set(call.validAttachments.map(({ containerId, ifname }) => `${containerId}:${ifname}`));
    const validIds = new Set(call.validAttachments.map(({ containerId }) => containerId));
    for (const { address, owner = { containerId: '', ifname: '' } } of store?.list() ?? []) {
      const keep = owner.ifname
        ? valid.has(`${owner.containerId}:${owner.ifname}`)
        : validIds.has(owner.containerId);
      if (!keep) store?.release(owner, [address]);
    }
  },
});

/** Reserves an address that was asked for. */
function takeRequested(
  store: Store,
  call: HostLocalCall,
  set: RangeSet,
  index: number,
  address: Address,
): IPConfig {
  const range = rangeOf(set, address)!;
  if (address.equals(range.gateway))
    throw new Error(
      `The requested address ${address} is the gateway of ${range.subnet}. Ask for another one`,
    );
  if (!store.reserve(address, call, index))
    throw new Error(
      `The requested address ${address} is reserved already. Ask for another one, or release it first`,
    );
  return { address: new Prefix(address, range.subnet.length), gateway: range.gateway };
}

/** Reserves the next free address of a range set. */
function takeNext(store: Store, call: HostLocalCall, set: RangeSet, index: number): IPConfig {
  const own = store.addressesOf(call).find((address) => setContains(set, address));
  if (own)
    throw new Error(
      `Container "${call.containerId}" already has address ${own} for interface "${call.ifname}", and gets no second one. ` +
        'Run DEL for it first, or GC if it is no more',
    );
  let taken: Set<bigint> | undefined;
  let tried = 0;
  for (const { address, range } of candidates(set, store.lastReserved(index))) {
    // Past a few neighbours, one reading of the directory is cheaper than an attempt an address. It also sees empty
    // files, which reserve() would take over, so those wait until the directory offers nothing else.
    if (++tried === 32) taken = new Set(store.reserved().map(({ value }) => value));
    if (taken?.has(address.value)) continue;
    if (store.reserve(address, call, index))
      return { address: new Prefix(address, range.subnet.length), gateway: range.gateway };
  }
  const torn = store
    .list()
    .find(({ address, owner }) => !owner && setContains(set, address) && !isGateway(set, address));
  if (torn && store.reserve(torn.address, call, index)) {
    const range = rangeOf(set, torn.address)!;
    return { address: new Prefix(torn.address, range.subnet.length), gateway: range.gateway };
  }
  throw new Error(
    `No address is free in ${formatSet(set)} of network "${call.config.name}". Delete containers, collect stale reservations with GC, or add a range`,
  );
}

function isGateway(set: RangeSet, address: Address): boolean {
  return set.some(({ gateway }) => gateway.equals(address));
}

function openStore(call: HostLocalCall): Store {
  return Store.open(dataDirOf(call), call.config.name);
}

function dataDirOf(call: HostLocalCall): string {
  return call.config.ipam.dataDir || '/var/lib/cni/networks';
}

/** The range sets in the order in which they are numbered on disk: the runtime's, the flat keys, the list. */
function rangeSetsOf(call: HostLocalCall): RangeSet[] {
  const { ranges = [], subnet, rangeStart, rangeEnd, gateway } = call.config.ipam;
  const flat = subnet
    ? [
        [
          {
            subnet,
            ...(rangeStart && { rangeStart }),
            ...(rangeEnd && { rangeEnd }),
            ...(gateway && { gateway }),
          },
        ],
      ]
    : [];
  const sets = resolveRangeSets([...(call.config.runtimeConfig?.ipRanges ?? []), ...flat, ...ranges]);
  if (sets.length === 0)
    throw new Error('"ipam" has no addresses to give away. Set "ipam.ranges" or "ipam.subnet"');
  const families = sets.map((set) => set[0]!.start.family);
  if (!atLeast(call.config.cniVersion, '0.3.0') && new Set(families).size < families.length)
    throw new Error(
      `"cniVersion" is "${call.config.cniVersion}", which has one address a family, but "ipam.ranges" gives several. Set it to "0.3.0" or newer`,
    );
  return sets;
}

/** Addresses that the runtime or the user asks for, from every place where they can. */
function requestedAddresses(call: HostLocalCall): Address[] {
  const { IP } = call.args(['IP']);
  const asked = [
    ...(IP ? [['IP of CNI_ARGS', IP] as const] : []),
    ...(call.config.args?.cni?.ips ?? []).map((ip) => ['"args.cni.ips"', ip] as const),
    ...(call.config.runtimeConfig?.ips ?? []).map((ip) => ['"runtimeConfig.ips"', ip] as const),
  ];
  return asked.map(([where, text]) => {
    const address = Address.tryParse(text) ?? Prefix.tryParse(text)?.address;
    if (!address) throw new Error(`${where} asks for "${text}", which is not an IP address`);
    return address;
  });
}

function refuseUnwritable(dataDir: string): void {
  let existing = dataDir;
  while (!existsSync(existing) && dirname(existing) !== existing) existing = dirname(existing);
  // Asking for permission is not enough: root has it even where the file system is read-only.
  const probe = `${existing}/.probe-${process.pid}`;
  try {
    mkdirSync(probe);
    rmdirSync(probe);
  } catch (error) {
    throw new CniError(
      ErrorCode.NotAvailable,
      `"${existing}" is not writable, so no address can be reserved. Make it writable, or set "ipam.dataDir" elsewhere`,
      (error as Error).message,
    );
  }
}
