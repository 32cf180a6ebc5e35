/** Checks whether the addresses and routes of a plugin and its IPAM plugin are consistent. */

import type { AddressPool } from '../../lib/cni/plugin.ts';
import { getKey } from '../../lib/cni/schema.ts';
import { Address, Prefix } from '../../lib/ip.ts';
import { isObject } from '../../lib/object.ts';
import { at, error, type Finding, warning } from './finding.ts';

/** The smallest MTU with which IPv6 works, in bytes. Source: RFC 8200, section 5. */
const smallestIPv6Mtu = 1280;

/** A subnet that addresses come from, and its gateway where the configuration names one. */
interface Subnet {
  readonly prefix: Prefix;
  readonly gateway: Address | undefined;
  /** Path of the gateway, below "ipam". */
  readonly path: string;
}

/**
 * Checks a plugin's configuration, which must fit the plugins' schemas.
 * @param path of the configuration in its file.
 */
export function addressingFindings(
  config: Readonly<Record<string, unknown>>,
  pools: readonly AddressPool[],
  path: string,
): Finding[] {
  const ipam = isObject(config.ipam) ? config.ipam : {};
  const subnets = subnetsOf(ipam);
  return [
    ...mtuFindings(config, pools, path),
    ...([4, 6] as const).flatMap((family) => {
      const own = subnets.filter(({ prefix }) => prefix.family === family);
      return gatewayFindings(config, ipam, own, path);
    }),
  ];
}

function mtuFindings(
  config: Readonly<Record<string, unknown>>,
  pools: readonly AddressPool[],
  path: string,
): Finding[] {
  const mtu = getKey(config, 'mtu');
  if (typeof mtu !== 'number' || mtu < 68 || mtu >= smallestIPv6Mtu) return [];
  if (!pools.some(({ subnet }) => subnet.includes(':'))) return [];
  return [
    error(
      'mtu',
      at(path, 'mtu'),
      `"mtu" is ${mtu}, but interfaces with IPv6 addresses need ${smallestIPv6Mtu}. Raise it, or leave it out`,
    ),
  ];
}

/** @param subnets those of one family. */
function gatewayFindings(
  config: Readonly<Record<string, unknown>>,
  ipam: Readonly<Record<string, unknown>>,
  subnets: readonly Subnet[],
  path: string,
): Finding[] {
  const [first] = subnets;
  if (!first) return [];
  const { family } = first.prefix;
  const routes = routesOf(ipam).filter(({ dst }) => dst.family === family);
  const stranger = routes.findIndex(({ gw }) => gw && !isNear(gw, subnets, routes));
  if (stranger >= 0)
    return [
      error(
        'gateway',
        at(path, at('ipam', `routes[${stranger}].gw`)),
        `Gateway "${routes[stranger]!.gw}" of the route to "${routes[stranger]!.dst}" is in no subnet of the container. Give it one that is`,
      ),
    ];
  const isBridge = config.type === 'bridge';
  const leads = isBridge && getKey(config, 'isDefaultGateway') === true;
  if (!leads && routes.every(({ gw }) => gw)) return [];
  // ptp has a route to the gateway, wherever that is.
  const outside = subnets.find(({ prefix, gateway }) => gateway && !prefix.contains(gateway));
  if (outside && config.type !== 'ptp')
    return [
      error(
        'gateway',
        at(path, at('ipam', outside.path)),
        `Gateway "${outside.gateway}" is not in subnet "${outside.prefix}", so that routes cannot lead there. ` +
          'Set "gateway" to an address of the subnet, or give the routes a "gw" that is in it',
      ),
    ];
  const isServed = leads || getKey(config, 'isGateway') === true;
  if (isBridge && !isServed && subnets.every(({ gateway }) => !gateway))
    return [
      warning(
        'gateway',
        at(path, 'ipam'),
        `Routes lead to the first address of "${first.prefix}", which nobody has. Set "isGateway" so that the bridge gets it, ` +
          'or name the router in "gateway"',
      ),
    ];
  return [];
}

/** Whether the container reaches an address without a gateway, or may do so by a route that names none. */
function isNear(address: Address, subnets: readonly Subnet[], routes: readonly Route[]): boolean {
  return (
    subnets.some(({ prefix }) => prefix.contains(address)) ||
    routes.some(({ dst, gw }) => !gw && dst.contains(address))
  );
}

/** A route of the configuration. */
interface Route {
  readonly dst: Prefix;
  /** Undefined when the container's gateway is meant. */
  readonly gw: Address | undefined;
}

function routesOf(ipam: Readonly<Record<string, unknown>>): Route[] {
  return listOf(ipam.routes).flatMap(({ dst, gw }) => {
    const prefix = typeof dst === 'string' ? Prefix.tryParse(dst) : undefined;
    return prefix ? [{ dst: prefix, gw: typeof gw === 'string' ? Address.tryParse(gw) : undefined }] : [];
  });
}

/** The subnets of host-local's and static's configurations. */
function subnetsOf(ipam: Readonly<Record<string, unknown>>): Subnet[] {
  const sets = Array.isArray(ipam.ranges) ? ipam.ranges.map(listOf) : [];
  return [
    subnet(ipam.subnet, ipam.gateway, 'gateway'),
    ...sets.flatMap((set, i) =>
      set.map(({ subnet: text, gateway }, j) => subnet(text, gateway, `ranges[${i}][${j}].gateway`)),
    ),
    ...listOf(ipam.addresses).map(({ address, gateway }, i) =>
      subnet(address, gateway, `addresses[${i}].gateway`),
    ),
  ].filter((one) => one !== undefined);
}

function subnet(text: unknown, gateway: unknown, path: string): Subnet | undefined {
  const prefix = typeof text === 'string' ? Prefix.tryParse(text) : undefined;
  return (
    prefix && { prefix, gateway: typeof gateway === 'string' ? Address.tryParse(gateway) : undefined, path }
  );
}

function listOf(value: unknown): Record<string, unknown>[] {
  return Array.isArray(value) ? value.filter(isObject) : [];
}
