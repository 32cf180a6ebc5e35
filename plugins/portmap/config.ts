/** How the portmap plugin is configured, by the network and by the runtime. */

import type { Call } from '../../lib/cni/call.ts';
import { addressSchema } from '../../lib/cni/result.ts';
import {
  array,
  boolean,
  type InferShape,
  integer,
  object,
  required,
  string,
  withDefault,
} from '../../lib/cni/schema.ts';
import { backendNames } from '../../lib/firewall/backend.ts';
import type { PortMapOptions, PortMapping } from '../../lib/firewall/portmap-backend.ts';

const port = integer({ min: 0, max: 65535 });
const conditions = array(string(), { description: 'Further matches that a packet must meet, word by word.' });

export const config = {
  backend: string({
    values: backendNames,
    description: 'What to map ports with; by default iptables where it can be used, else nftables.',
  }),
  snat: withDefault(
    boolean({ description: 'Let the host itself, and the container, reach the mapped port.' }),
    true,
  ),
  masqAll: boolean({ description: 'Give every connection the address of the host.' }),
  markMasqBit: integer({
    max: 31,
    description: 'Bit of the packet mark that asks iptables for masquerading; 13 by default.',
  }),
  externalSetMarkChain: string({
    pattern: /^[A-Za-z0-9_.-]{1,28}$/,
    description: 'Chain that marks packets for masquerading, in place of our own, such as KUBE-MARK-MASQ.',
  }),
  conditionsV4: conditions,
  conditionsV6: conditions,
  runtimeConfig: object({
    portMappings: array(
      object({
        hostPort: required(port),
        containerPort: required(port),
        protocol: withDefault(string(), 'tcp'),
        hostIP: addressSchema,
      }),
    ),
  }),
};

export type Config = InferShape<typeof config>;
export type PortMapCall = Call<Config>;

/**
 * The ports that the runtime asks for.
 * @throws Error for port 0, as in the reference plugin, and for an unknown protocol.
 */
export function mappingsOf(call: PortMapCall): PortMapping[] {
  const all = call.config.runtimeConfig?.portMappings ?? [];
  return all.map(({ hostPort, containerPort, protocol, hostIP }, i) => {
    const where = `"runtimeConfig.portMappings[${i}]"`;
    const name = (protocol || 'tcp').toLowerCase();
    if (hostPort === 0 || containerPort === 0)
      throw new Error(
        `${where} has ${hostPort === 0 ? 'hostPort' : 'containerPort'} 0. Give a port between 1 and 65535`,
      );
    if (!['tcp', 'udp', 'sctp'].includes(name))
      throw new Error(`${where} has protocol "${protocol}", but it must be "tcp", "udp" or "sctp"`);
    return { hostPort, containerPort, protocol: name, ...(hostIP && { hostIP }) };
  });
}

/** What the operator chose. @throws Error for keys that exclude one another. */
export function optionsOf({ config }: PortMapCall): PortMapOptions {
  const {
    snat,
    masqAll = false,
    markMasqBit,
    externalSetMarkChain,
    conditionsV4 = [],
    conditionsV6 = [],
  } = config;
  refuseContradiction(config);
  return {
    snat,
    masqAll,
    markMasqBit: markMasqBit ?? 13,
    externalSetMarkChain,
    conditions: { 4: conditionsV4, 6: conditionsV6 },
  };
}

/** @throws Error when "markMasqBit" and "externalSetMarkChain" are both set. */
export function refuseContradiction({ markMasqBit, externalSetMarkChain }: Config): void {
  if (markMasqBit !== undefined && externalSetMarkChain)
    throw new Error(
      '"markMasqBit" and "externalSetMarkChain" are both set. Take one out: the chain sets a bit of its own',
    );
}

/** @throws Error when a key is set that the nftables backend does not support. */
export function refuseIptablesKeys({ externalSetMarkChain }: Config): void {
  if (externalSetMarkChain)
    throw new Error(
      '"externalSetMarkChain" is for iptables only. Take it out, or set "backend" to "iptables"',
    );
}
