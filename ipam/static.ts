/** static: gives the addresses that the configuration or the runtime names. */

import type { Call } from '../lib/cni/call.ts';
import type { NetConf } from '../lib/cni/config.ts';
import { refuse, routeProblems } from '../lib/cni/config-checks.ts';
import { definePlugin, requirePrevResult } from '../lib/cni/plugin.ts';
import {
  addressSchema,
  dnsSchema,
  emptyResult,
  type IPConfig,
  prefixSchema,
  routeSchema,
} from '../lib/cni/result.ts';
import { array, type InferShape, object, required, string } from '../lib/cni/schema.ts';
import { atLeast } from '../lib/cni/version.ts';
import { Address, Prefix } from '../lib/ip.ts';

const ips = array(
  string({ description: 'Address with prefix length, in place of those of the configuration.' }),
);

const config = {
  ipam: object({
    type: string(),
    addresses: array(object({ address: required(prefixSchema), gateway: addressSchema }), {
      description: 'Addresses for the container.',
    }),
    routes: array(routeSchema, { description: 'Routes for the container.' }),
    dns: dnsSchema,
  }),
  runtimeConfig: object({ ips }),
  args: object({ cni: object({ ips }) }),
};

type StaticConfig = InferShape<typeof config> & NetConf;
type StaticCall = Call<InferShape<typeof config>>;

export const plugin = definePlugin({
  name: 'static',
  summary: 'Gives the addresses that the configuration or the runtime names.',
  role: 'ipam',
  interfaceGoes: 'beside',
  config,

  validate(config) {
    const { addresses = [], routes } = requireIpam(config);
    refuse(...routeProblems(routes));
    refuseSeveral(addresses, config);
  },

  explain(config) {
    const { addresses = [], routes = [] } = requireIpam(config);
    return [
      addresses.length > 0
        ? `Gives the container ${addresses.map(({ address }) => address).join(' and ')}`
        : 'Gives the container the addresses that the runtime passes',
      routes.length > 0 ? `Adds routes in the container: ${routes.map(({ dst }) => dst).join(', ')}` : '',
    ];
  },

  pools: (config) =>
    (config.ipam?.addresses ?? []).map(({ address }) => ({
      subnet: `${address.network}`,
      range: `${address.address}-${address.address}`,
    })),

  add(call) {
    const ips = addressesOf(call);
    const { routes = [], dns = {} } = requireIpam(call.config);
    refuse(...routeProblems(routes));
    return { ...emptyResult(), ips, routes, dns };
  },

  // Nothing was reserved.
  del() {},

  check(call) {
    const result = requirePrevResult(call);
    for (const { address, gateway } of addressesOf(call)) {
      const found = result.ips.find((ip) => ip.address.equals(address));
      if (!found)
        throw new Error(`The container was not given address ${address}. Delete it and add it again`);
      if (gateway && !gateway.equals(found.gateway))
        throw new Error(
          `Address ${address} was given gateway ${found.gateway ?? 'none'} where ${gateway} is configured. Delete the container and add it again`,
        );
    }
  },

  status: (call) => void addressesOf(call),
});

/** The addresses of the runtime if it names any, else those of the configuration and of CNI_ARGS. */
function addressesOf(call: StaticCall): IPConfig[] {
  const { addresses = [] } = requireIpam(call.config);
  const fromArgs = argumentAddresses(call);
  const { runtimeConfig, args } = call.config;
  const replacing = (
    [
      ['runtimeConfig.ips', runtimeConfig?.ips],
      ['args.cni.ips', args?.cni?.ips],
    ] as const
  ).find(([, list]) => list?.length);
  const chosen = replacing
    ? replacing[1]!.map((text) => ({ address: parsePrefix(text, `"${replacing[0]}"`) }))
    : [...addresses, ...fromArgs];
  refuseSeveral(chosen, call.config);
  return chosen;
}

function requireIpam(config: StaticConfig): NonNullable<StaticConfig['ipam']> {
  if (config.ipam) return config.ipam;
  throw new Error('The configuration has no "ipam". Set it, with the container\'s "addresses"');
}

/** Results before 0.3.0 have room for one address of each family. */
function refuseSeveral(addresses: readonly IPConfig[], { cniVersion }: NetConf): void {
  const families = addresses.map(({ address }) => address.family);
  if (!atLeast(cniVersion, '0.3.0') && new Set(families).size < families.length)
    throw new Error(
      `"cniVersion" is "${cniVersion}", which has one address a family, but there are several: ` +
        `${addresses.map(({ address }) => address).join(', ')}. Set it to "0.3.0" or newer`,
    );
}

/**
 * IP and GATEWAY of CNI_ARGS: lists separated by commas, where each gateway serves the addresses in its
 * subnet.
 */
function argumentAddresses(call: StaticCall): IPConfig[] {
  const { IP = '', GATEWAY = '' } = call.args(['IP', 'GATEWAY']);
  const list = (text: string) => (text === '' ? [] : text.split(',').map((item) => item.trim()));
  const gateways = list(GATEWAY).map((text) => {
    const gateway = Address.tryParse(text);
    if (!gateway) throw new Error(`GATEWAY of CNI_ARGS is "${text}", which is not an IP address`);
    return gateway;
  });
  return list(IP).map((text) => {
    const address = parsePrefix(text, 'IP of CNI_ARGS');
    const gateway = gateways.findLast((candidate) => address.contains(candidate));
    return { address, ...(gateway && { gateway }) };
  });
}

function parsePrefix(text: string, where: string): Prefix {
  const prefix = Prefix.tryParse(text);
  if (!prefix)
    throw new Error(
      `${where} names "${text}", but it must be an address with a prefix length, such as "10.1.0.5/16"`,
    );
  return prefix;
}
