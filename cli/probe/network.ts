/** What the configuration of a network says about who can reach whom. */

import { getKey } from '../../lib/cni/schema.ts';
import { Address } from '../../lib/ip.ts';
import { isObject } from '../../lib/object.ts';
import type { RunningAttachment } from '../inventory/running.ts';

/** The host address that a port is published at; undefined if it is all of them. */
export function hostIpOf({ record }: RunningAttachment, port: number, protocol: string): string | undefined {
  const mappings = getKey(record?.capabilityArgs ?? {}, 'portMappings');
  const found = (Array.isArray(mappings) ? mappings : [])
    .filter(isObject)
    .find((one) => getKey(one, 'hostPort') === port && (getKey(one, 'protocol') ?? 'tcp') === protocol);
  const ip = found && getKey(found, 'hostIP');
  const address = typeof ip === 'string' ? Address.tryParse(ip) : undefined;
  return address && !address.isUnspecified ? `${address}` : undefined;
}

/** Why pods of a network must not reach one another; undefined if they may. */
export function apartBecause({ network }: RunningAttachment): string | undefined {
  for (const { type, config } of network?.plugins ?? []) {
    if (type === 'bridge' && config.portIsolation === true)
      return '"portIsolation" keeps the pods of the network apart';
    if (type === 'firewall' && config.ingressPolicy === 'isolated')
      return '"ingressPolicy" keeps the pods of the network apart';
    if (type === 'macvlan' && config.mode === 'private')
      return 'mode "private" keeps the pods of the network apart';
  }
  return undefined;
}

/** Why a pod and its host cannot reach one another; undefined if they can. */
export function withoutHost({ network }: RunningAttachment): string | undefined {
  const kind = network?.plugins.find(({ type }) => type === 'macvlan' || type === 'ipvlan')?.type;
  return kind && `the kernel lets nothing pass between ${kind} interfaces and the host that has their parent`;
}
