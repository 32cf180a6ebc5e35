/** The configuration of a network, composed of options. */

import { Address, Prefix } from '../../lib/ip.ts';
import { CommandError, ExitCode } from '../errors.ts';
import { freeBridge, freeSubnet, type HostUse, localSubnet } from './free-subnet.ts';

/** Plugins that a network can be made with. */
export const drivers = ['bridge', 'ptp', 'macvlan', 'ipvlan'] as const;

/** The options of a new network. */
export interface NetworkOptions {
  name: string;
  driver: (typeof drivers)[number];
  subnet: string[];
  gateway: string[];
  ipRange?: string[];
  ipv6: boolean;
  parent?: string | undefined;
  bridge?: string | undefined;
  mtu?: number | undefined;
  vlan?: number | undefined;
  internal: boolean;
  /** Whether ports can be published; by default, where that is possible. */
  ports?: boolean | undefined;
  /** Whether to let pods through the firewall; by default, where their packets pass it. */
  firewall?: boolean | undefined;
  isolate: boolean;
}

/** An address range of host-local. */
interface Range {
  subnet: string;
  rangeStart?: string;
  rangeEnd?: string;
  gateway?: string;
}

/**
 * Composes a conflist.
 * @throws CommandError for options that do not go together.
 */
export function composeNetwork(options: NetworkOptions, use: HostUse): object {
  const { name, driver, parent, bridge, mtu, vlan, internal, ports, firewall, isolate } = options;
  const isOnHost = driver === 'bridge' || driver === 'ptp';
  if (isOnHost && parent !== undefined)
    throw usage(`--parent is for macvlan and ipvlan. Leave it out, or give "--driver macvlan"`);
  if (!isOnHost && !parent)
    throw usage(`A ${driver} network needs an interface of the host. Name it with --parent`);
  for (const [option, value] of Object.entries({ bridge, vlan, isolate }))
    if (driver !== 'bridge' && value) throw usage(`--${option} is for bridges. Leave it out`);
  if (!isOnHost && options.subnet.length === 0)
    for (const [option, why] of Object.entries({
      internal: 'which gives pods a default route',
      ipv6: 'which gives only IPv4 addresses',
    }))
      if (options[option as 'internal' | 'ipv6'])
        throw usage(
          `Without --subnet, a ${driver} network uses DHCP, ${why}. Give --subnet, or leave --${option} out`,
        );
  for (const [option, value] of Object.entries({ ports, firewall }))
    if (!isOnHost && value)
      throw usage(`--${option} is for bridge and ptp: what ${driver} sends passes the host by. Leave it out`);
  if (ports && internal) throw usage('--internal and --ports exclude each other. Leave one of them out');
  if (isolate && firewall === false)
    throw usage('--isolate takes the firewall plugin. Leave --no-firewall out');
  const ranges = rangesOf(options, use, isOnHost);
  const routes = internal ? [] : defaultRoutes(ranges);
  const main = {
    type: driver,
    ...(driver === 'bridge' && {
      bridge: bridge ?? freeBridge(use),
      isGateway: !internal,
      hairpinMode: true,
    }),
    ...(isOnHost ? { ipMasq: !internal } : { master: parent }),
    ...(mtu !== undefined && { mtu }),
    ...(vlan !== undefined && { vlan }),
    ipam:
      ranges.length === 0
        ? { type: 'dhcp' }
        : {
            type: 'host-local',
            ranges,
            ...(routes.length > 0 && { routes }),
          },
  };
  return {
    cniVersion: '1.0.0',
    cniVersions: ['1.0.0', '1.1.0'],
    name,
    plugins: [
      main,
      ...(isOnHost && ports !== false && !internal
        ? [{ type: 'portmap', capabilities: { portMappings: true } }]
        : []),
      ...(isOnHost && firewall !== false
        ? [{ type: 'firewall', ...(isolate && { ingressPolicy: 'same-bridge' }) }]
        : []),
    ],
  };
}

/** One set of ranges for each subnet: a pod gets an address from each set. */
function rangesOf(options: NetworkOptions, use: HostUse, isOnHost: boolean): Range[][] {
  const subnets = options.subnet.map(
    (text) => parsed(Prefix.tryParse(text), '--subnet', text, '10.5.0.0/24').network,
  );
  const has = (family: number) => subnets.some((subnet) => subnet.family === family);
  if (subnets.length === 0 && isOnHost) subnets.push(Prefix.parse(freeSubnet(use)));
  if (options.ipv6 && !has(6)) subnets.push(Prefix.parse(localSubnet(options.name)));
  const subnetOf = (address: Address, option: string) => {
    const found = subnets.find((subnet) => subnet.contains(address));
    if (found) return found;
    throw usage(`${option} "${address}" is in no subnet of the network. Add its subnet with --subnet`);
  };
  const gateways = new Map<Prefix, Address>();
  for (const text of options.gateway) {
    const gateway = parsed(Address.tryParse(text), '--gateway', text, '10.5.0.1');
    const subnet = subnetOf(gateway, '--gateway');
    if (gateways.has(subnet))
      throw usage(
        `--gateway "${gateways.get(subnet)}" and "${gateway}" are of one subnet, ${subnet}. Give one of them`,
      );
    gateways.set(subnet, gateway);
  }
  const parts = (options.ipRange ?? []).map((text) => {
    const [start, end] = rangeEnds(text);
    const subnet = subnetOf(start, '--ip-range');
    if (subnetOf(end, '--ip-range') !== subnet)
      throw usage(`--ip-range "${text}" begins and ends in different subnets. Give one for each`);
    const { first, last, family } = subnet;
    // The network address and the broadcast address of a subnet are handed out to nobody.
    const rangeStart = `${start.equals(first) ? start.plus(1) : start}`;
    const rangeEnd = `${family === 4 && end.equals(last) ? end.plus(-1) : end}`;
    return { subnet, part: { rangeStart, rangeEnd } };
  });
  return subnets.map((subnet) => {
    const own = parts.filter((one) => one.subnet === subnet).map(({ part }) => part);
    const gateway = gateways.get(subnet);
    return (own.length > 0 ? own : [{}]).map((part) => ({
      subnet: `${subnet}`,
      ...(gateway && { gateway: `${gateway}` }),
      ...part,
    }));
  });
}

/** First and last address of "10.5.0.128/25" or "10.5.0.10-10.5.0.99". */
function rangeEnds(text: string): [Address, Address] {
  const prefix = Prefix.tryParse(text);
  if (prefix) return [prefix.first, prefix.last];
  const [start = '', end = ''] = text.split('-');
  const parse = (part: string) => parsed(Address.tryParse(part), '--ip-range', text, '10.5.0.10-10.5.0.99');
  return [parse(start), parse(end)];
}

function defaultRoutes(sets: readonly (readonly Range[])[]): { dst: string }[] {
  const ranges = sets.flat();
  const has6 = ranges.some(({ subnet }) => subnet.includes(':'));
  const has4 = ranges.some(({ subnet }) => !subnet.includes(':'));
  return [...(has4 ? [{ dst: '0.0.0.0/0' }] : []), ...(has6 ? [{ dst: '::/0' }] : [])];
}

function parsed<T>(value: T | undefined, option: string, text: string, example: string): T {
  if (value !== undefined) return value;
  throw usage(`${option} is "${text}", but it must be like ${example}`);
}

function usage(message: string): CommandError {
  return new CommandError(message, { exitCode: ExitCode.Usage });
}
