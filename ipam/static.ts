/** static: gives the addresses that the configuration or the runtime names. */

import type { Call } from '../lib/cni/call.ts';
import { definePlugin } from '../lib/cni/plugin.ts';
import {
  addressSchema,
  dnsSchema,
  emptyResult,
  type IPConfig,
  prefixSchema,
  routeSchema,
} from '../lib/cni/result.ts';
import { array, type InferShape, object, required, string, withDefault } from '../lib/cni/schema.ts';
import { Address, Prefix } from '../lib/ip.ts';

const ips = array(
  string({ description: 'Address with prefix length, in place of those of the configuration.' }),
);

const config = {
  ipam: withDefault(
    object({
      type: string(),
      addresses: array(object({ address: required(prefixSchema), gateway: addressSchema }), {
        description: 'Addresses for the container.',
      }),
      routes: array(routeSchema, { description: 'Routes for the container.' }),
      dns: dnsSchema,
    }),
    {},
  ),
  runtimeConfig: object({ ips }),
  args: object({ cni: object({ ips }) }),
};

type StaticCall = Call<InferShape<typeof config>>;

export const plugin = definePlugin({
  name: 'static',
  summary: 'Gives the addresses that the configuration or the runtime names.',
  role: 'ipam',
  config,

  add(call) {
    const { routes = [], dns = {} } = call.config.ipam;
    return { ...emptyResult(), ips: addressesOf(call), routes, dns };
  },

  // Nothing was reserved.
  del() {},

  check(call) {
    const result = call.prevResult;
    if (!result)
      throw new Error('CHECK needs "prevResult" in the configuration. Pass the result that ADD gave');
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
  const { addresses = [] } = call.config.ipam;
  const fromArgs = argumentAddresses(call);
  for (const [where, list] of [
    ['runtimeConfig.ips', call.config.runtimeConfig?.ips],
    ['args.cni.ips', call.config.args?.cni?.ips],
  ] as const)
    if (list?.length) return list.map((text) => ({ address: parsePrefix(text, `"${where}"`) }));
  return [...addresses, ...fromArgs];
}

/** IP and GATEWAY of CNI_ARGS: lists separated by commas, where each gateway serves the addresses in its subnet. */
function argumentAddresses(call: StaticCall): IPConfig[] {
  const { IP = '', GATEWAY = '' } = call.args(['IP', 'GATEWAY']);
  const list = (text: string) => text.split(',').filter((item) => item !== '');
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
