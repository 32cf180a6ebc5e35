/** host-local: gives addresses away from ranges, and remembers them in files on this host. */

import { attachmentKey } from '../lib/attachment.ts';
import type { Call } from '../lib/cni/call.ts';
import { refuse, routeProblems } from '../lib/cni/config-checks.ts';
import { definePlugin } from '../lib/cni/plugin.ts';
import { emptyResult, type Result } from '../lib/cni/result.ts';
import type { InferShape } from '../lib/cni/schema.ts';
import { CniError, ErrorCode } from '../lib/errors.ts';
import { Address, Prefix } from '../lib/ip.ts';
import { refuseSecondAddress, reserveNext, reserveRequested, waysOut } from './host-local/allocator.ts';
import {
  configuredRangeSets,
  dataDirOf,
  hostLocalShape,
  pathProblems,
  rangeSetsOf,
} from './host-local/config.ts';
import { formatSet, type RangeSet, setContains } from './host-local/ranges.ts';
import { describeProblems, fullSets, reservations, seenReservations } from './host-local/reservations.ts';
import { readResolvConf } from './host-local/resolv-conf.ts';
import { Store, type StoreLocation } from './host-local/store.ts';
import { refuseUnwritable } from './host-local/writable.ts';

type HostLocalCall = Call<InferShape<typeof hostLocalShape>>;

export const plugin = definePlugin({
  name: 'host-local',
  summary: 'Gives addresses away from ranges, and remembers them in files on this host.',
  role: 'ipam',
  interfaceGoes: 'beside',
  config: hostLocalShape,

  validate(config) {
    refuse(...routeProblems(config.ipam.routes), ...pathProblems(config));
    configuredRangeSets(config);
  },

  explain(config) {
    const { routes = [], resolvConf } = config.ipam;
    const sets = configuredRangeSets(config);
    return [
      sets.length === 0
        ? 'Reserves an address of each range that the runtime passes'
        : `Reserves the next free address of ${sets.map(formatSet).join(' and of ')}`,
      `Remembers it in ${dataDirOf(config)}/${config.name}`,
      routes.length > 0 ? `Adds routes in the container: ${routes.map(({ dst }) => dst).join(', ')}` : '',
      resolvConf ? `Takes resolver settings from ${resolvConf}` : '',
    ];
  },

  pools: (config) =>
    configuredRangeSets(config)
      .flat()
      .map(({ subnet, start, end }) => ({ subnet: `${subnet}`, range: `${start}-${end}` })),

  async add(call) {
    const sets = rangeSetsOf(call.config);
    const requests = assignRequests(sets, requestedAddresses(call));
    const { resolvConf, routes = [] } = call.config.ipam;
    refuse(...routeProblems(routes), ...pathProblems(call.config));
    const dns = resolvConf ? readResolvConf(resolvConf) : {};

    using store = await Store.open(locationOf(call));
    store.releaseEarlierBoots();
    // Even when an address is requested, in which case the reference plugin gives a second one.
    for (const set of sets) refuseSecondAddress(store, call, set);
    const result: Result = { ...emptyResult(), routes, dns };
    for (const [i, set] of sets.entries()) {
      const ip = requests[i]
        ? reserveRequested(store, call, set, i, requests[i])
        : reserveNext(store, call, set, i);
      call.undo(`release address ${ip.address.address}`, () => releaseAddress(call, ip.address.address));
      result.ips.push(ip);
    }
    return result;
  },

  async del(call) {
    using store = await Store.openIfPresent(locationOf(call));
    store?.release(call);
  },

  async check(call) {
    const sets = rangeSetsOf(call.config);
    const own = await reservedFor(call);
    if (own.length === 0)
      throw new Error(
        `No address of network "${call.network}" is reserved for container "${call.containerId}" and interface "${call.ifname}". Delete the container and add it again`,
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

  /** A full range or a bad entry is only a warning: an error would make the node not ready. */
  async status(call) {
    const { network } = call;
    const dataDir = dataDirOf(call.config);
    const sets = rangeSetsOf(call.config);
    refuse(...pathProblems(call.config));
    try {
      refuseUnwritable(dataDir);
      (await Store.openIfPresent(locationOf(call)))?.close();
    } catch (error) {
      if (!(error instanceof CniError) || error.code !== ErrorCode.IOFailure) throw error;
      throw new CniError(
        ErrorCode.NotAvailable,
        `No address can be reserved. ${error.message}`,
        error.details,
      );
    }
    const reserved = reservations(dataDir, network);
    for (const set of fullSets(sets, reserved))
      call.warn(`All addresses of ${formatSet(set)} in network "${network}" are reserved. ${waysOut}`);
    const problems = describeProblems(`${dataDir}/${network}`, reserved);
    if (problems) call.warn(problems);
  },

  async gc(call) {
    using store = await Store.openIfPresent(locationOf(call));
    const valid = new Set(call.validAttachments.map(attachmentKey));
    const containers = new Set(call.validAttachments.map(({ containerId }) => containerId));
    store?.collect((owner) =>
      owner.ifname === '' ? containers.has(owner.containerId) : valid.has(attachmentKey(owner)),
    );
  },
});

function locationOf(call: HostLocalCall): StoreLocation {
  return { dataDir: dataDirOf(call.config), network: call.network, warn: (message) => call.warn(message) };
}

/** The addresses that are reserved for the call's attachment. */
async function reservedFor(call: HostLocalCall): Promise<readonly Address[]> {
  const { once } = call.programs;
  if (once) {
    const { byOwner } = seenReservations(dataDirOf(call.config), call.network, once);
    const nameless = { ...call.attachment, ifname: '' };
    return byOwner.get(attachmentKey(call)) ?? byOwner.get(attachmentKey(nameless)) ?? [];
  }
  using store = await Store.openIfPresent(locationOf(call));
  return store?.addressesOf(call, { thorough: true }) ?? [];
}

/** Undoes one reservation of this call, long after its lock was released. */
async function releaseAddress(call: HostLocalCall, address: Address): Promise<void> {
  using store = await Store.openIfPresent(locationOf(call));
  store?.releaseAddress(call, address);
}

/**
 * Addresses that the runtime or the user asks for, from every place where they can. Multus asks for each one
 * twice, by CNI_ARGS and by capability.
 */
function requestedAddresses(call: HostLocalCall): Address[] {
  const { IP } = call.args(['IP']);
  const asked = [
    ...(IP ? [['IP of CNI_ARGS', IP] as const] : []),
    ...(call.config.args?.cni?.ips ?? []).map((ip) => ['"args.cni.ips"', ip] as const),
    ...(call.config.runtimeConfig?.ips ?? []).map((ip) => ['"runtimeConfig.ips"', ip] as const),
  ];
  const addresses = asked.map(([where, text]) => {
    const address = Address.tryParse(text) ?? Prefix.tryParse(text)?.address;
    if (!address) throw new Error(`${where} asks for "${text}", which is not an IP address`);
    return address;
  });
  return addresses.filter((one, i) => addresses.findIndex((other) => other.equals(one)) === i);
}

/**
 * Finds the range set of each requested address; each set gives one address.
 * @returns by set, undefined where none of its addresses was requested.
 * @throws Error when an address is in no set, or in one from which another is requested already.
 */
function assignRequests(sets: readonly RangeSet[], wanted: readonly Address[]): (Address | undefined)[] {
  const left = [...wanted];
  const requests = sets.map((set) => {
    const at = left.findIndex((address) => setContains(set, address));
    return at < 0 ? undefined : left.splice(at, 1)[0];
  });
  for (const address of left) {
    const at = sets.findIndex((set) => setContains(set, address));
    if (at >= 0)
      throw new Error(
        `Address ${address} is requested of ${formatSet(sets[at]!)} beside ${requests[at]}, but a range set gives one. Ask for one address of each`,
      );
  }
  if (left.length > 0)
    throw new Error(
      `No range has the requested address ${left.join(', ')}. Ask for addresses within ${sets.map(formatSet).join(' and ')}`,
    );
  return requests;
}
