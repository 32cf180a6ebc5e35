/** What a new network must keep clear of: subnets and bridges that the host has already. */

import type { AddressPool } from '../../lib/cni/plugin.ts';
import { Prefix } from '../../lib/ip.ts';
import { listAddresses } from '../../lib/kernel/address.ts';
import { listLinks } from '../../lib/kernel/link.ts';
import { listRoutes } from '../../lib/kernel/route.ts';
import { openRouteSocket } from '../../lib/kernel/route-socket.ts';
import type { Suite } from '../../main.ts';
import { CommandError } from '../errors.ts';
import { bridgeOf, innerConfigs, makerOf } from '../inner.ts';
import { takeInventory } from '../inventory.ts';
import { ipamOf } from '../ipam.ts';
import { type NetworkList, networkFrom } from '../libcni/conflist.ts';
import { cacheDir, configDir } from '../settings.ts';

/** What the host has. */
export interface HostUse {
  /** Subnets of its interfaces, routes and networks. */
  readonly subnets: readonly Prefix[];
  /** Names of its interfaces, and of the bridges that its networks would make. */
  readonly interfaces: ReadonlySet<string>;
}

/** Looks at the host and its networks. @param suite whose IPAM plugins say what they hand out. */
export async function readHostUse(suite: Suite): Promise<HostUse> {
  const { networks } = await takeInventory(configDir(), cacheDir());
  const pools: AddressPool[] = [];
  const bridges: string[] = [];
  for (const network of networks) {
    const used = await useOf(network, suite);
    pools.push(...used.pools);
    bridges.push(...used.bridges);
  }
  using socket = openRouteSocket();
  return {
    subnets: [
      ...pools.map(({ subnet }) => Prefix.parse(subnet)),
      ...listAddresses(socket).map(({ prefix }) => prefix.network),
      ...listRoutes(socket)
        .map(({ dst }) => dst)
        .filter(({ length }) => length > 0),
    ],
    interfaces: new Set([...listLinks(socket).map(({ name }) => name), ...bridges]),
  };
}

/** The address pools and the bridges of a network, including those of the networks nested in it. */
async function useOf(network: NetworkList, suite: Suite) {
  const pools: AddressPool[] = [];
  const bridges: string[] = [];
  for (const plugin of network.plugins) {
    const inner = await innerConfigs(plugin.type, plugin.config, network, suite);
    const bridge = bridgeOf(makerOf(plugin, inner));
    if (bridge !== undefined) bridges.push(bridge);
    pools.push(...((await ipamOf(plugin, network, suite))?.pools ?? []));
    try {
      for (const { value } of inner.filter(({ isNetwork }) => isNetwork)) {
        const used = await useOf(networkFrom(value, network.bytes, ''), suite);
        pools.push(...used.pools);
        bridges.push(...used.bridges);
      }
    } catch {
      // "cni validate" reports what is wrong.
    }
  }
  return { pools, bridges };
}

/** A /24 between 10.89.0.0 and 10.255.255.255 that nobody uses. @throws CommandError when there is none. */
export function freeSubnet({ subnets }: HostUse): string {
  for (let i = 89 << 8; i < 1 << 16; i++) {
    const subnet = Prefix.parse(`10.${i >> 8}.${i & 255}.0/24`);
    if (!subnets.some((other) => other.overlaps(subnet))) return `${subnet}`;
  }
  throw new CommandError('No /24 between 10.89.0.0 and 10.255.255.255 is free. Give one with --subnet');
}

/** A /64 of unique local addresses, derived from a name. Source: RFC 4193, section 3.2. */
export function localSubnet(name: string): string {
  // Not imported above: loading it would cost every other command some milliseconds.
  const { createHash } = process.getBuiltinModule('node:crypto');
  const digits = createHash('sha256').update(name).digest('hex');
  return `${Prefix.parse(`fd${digits.slice(0, 2)}:${digits.slice(2, 6)}:${digits.slice(6, 10)}::/64`)}`;
}

/** The first of the names cni0, cni1, … that no interface or network has. */
export function freeBridge({ interfaces }: HostUse): string {
  for (let i = 0; ; i++) if (!interfaces.has(`cni${i}`)) return `cni${i}`;
}
