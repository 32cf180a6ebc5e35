/** What the runtime asks for, and on whose behalf. */

import type { Call } from '../../lib/cni/call.ts';
import type { IPConfig } from '../../lib/cni/result.ts';
import { Address, Prefix } from '../../lib/ip.ts';
import type { Source } from './backend.ts';
import type { Config, Ipam } from './config.ts';
import { type Pool, poolHas } from './pools.ts';

type WhereaboutsCall = Call<Config>;

/** The keys that CNI_ARGS may have. */
const known = [
  'IP',
  'GATEWAY',
  'MAC',
  'K8S_POD_NAMESPACE',
  'K8S_POD_NAME',
  'K8S_POD_INFRA_CONTAINER_ID',
  'K8S_POD_UID',
] as const;

/** Whom addresses in quarantine go back to: a claim, or the pod's name, which a StatefulSet reuses. */
export function identityOf(call: WhereaboutsCall): string {
  const claim = call.config.args?.cni?.['ipam-claim-reference'];
  const { K8S_POD_NAMESPACE: namespace = '', K8S_POD_NAME: name } = call.args(known);
  if (claim) return `claim ${namespace}/${claim}`;
  return name ? `pod ${namespace}/${name}/${call.ifname}/${call.network}` : '';
}

/** Namespace and name of the pod; "" when the runtime does not tell both. */
export function podrefOf(call: WhereaboutsCall): string {
  const { K8S_POD_NAMESPACE: namespace, K8S_POD_NAME: name } = call.args(known);
  return namespace && name ? `${namespace}/${name}` : '';
}

/** The requested address of each pool, if any, and addresses that are given without being reserved. */
export function requestsOf(
  call: WhereaboutsCall,
  ipam: Ipam,
  pools: readonly Pool[],
): { sources: Source[]; fixed: IPConfig[] } {
  const { args, runtimeConfig } = call.config;
  const { IP = '', GATEWAY = '' } = call.args(known);
  const split = (text: string) =>
    text
      .split(',')
      .map((item) => item.trim())
      .filter(Boolean);
  // Multus asks for the same address in two ways.
  const texts = new Set([...split(IP), ...(args?.cni?.ips ?? []), ...(runtimeConfig?.ips ?? [])]);
  const gateways = split(GATEWAY).map((text) => Address.parse(text));
  const wanted: (Address | undefined)[] = pools.map(() => undefined);
  const fixed: IPConfig[] = (ipam.addresses ?? []).flatMap(({ address, gateway }) =>
    address ? [{ address, ...(gateway && { gateway }) }] : [],
  );
  for (const text of texts) {
    const prefix = Prefix.tryParse(text) ?? Address.tryParse(text)?.toPrefix();
    if (!prefix) throw new Error(`The runtime asks for "${text}", which is not an IP address`);
    const at = pools.findIndex((pool, i) => !wanted[i] && poolHas(pool, prefix.address));
    if (at >= 0) wanted[at] = prefix.address;
    else if (pools.some(({ subnet }) => subnet.contains(prefix.address)) || !text.includes('/'))
      throw new Error(
        `No range gives the requested address ${prefix.address} away. Ask for another one, or correct "range" and "exclude"`,
      );
    else {
      const gateway = gateways.findLast((candidate) => prefix.contains(candidate));
      fixed.push({ address: prefix, ...(gateway && { gateway }) });
    }
  }
  if (pools.length + fixed.length === 0)
    throw new Error(
      '"ipam" has no addresses to give away. Set "ipam.range", "ipam.ipRanges" or "ipam.addresses"',
    );
  const sources = pools.map((pool, i) => ({ pool, wanted: wanted[i] }));
  return { sources, fixed };
}

export function configOf({ subnet, gateway }: Pool, address: Address): IPConfig {
  return { address: new Prefix(address, subnet.length), ...(gateway && { gateway }) };
}
