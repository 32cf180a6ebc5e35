/** portmap: leads ports of the host to a container that another plugin has connected. */

import type { Call } from '../lib/cni/call.ts';
import { definePlugin, requirePrevResult } from '../lib/cni/plugin.ts';
import { addressSchema, type Result } from '../lib/cni/result.ts';
import {
  array,
  boolean,
  convert,
  type InferShape,
  integer,
  object,
  required,
  string,
  withDefault,
} from '../lib/cni/schema.ts';
import { runAll, startBackground } from '../lib/cni/steps.ts';
import { backendNames, defaultBackend } from '../lib/firewall/backend.ts';
import { portMapBackend } from '../lib/firewall/portmap.ts';
import type {
  MappedPort,
  PortMapBackend,
  PortMapHints,
  PortMapOptions,
  PortMapping,
} from '../lib/firewall/portmap-backend.ts';
import type { Address, Prefix } from '../lib/ip.ts';
import { listAddresses } from '../lib/kernel/address.ts';
import { forgetUdp, type StalePort } from '../lib/kernel/conntrack.ts';
import { getLink } from '../lib/kernel/link.ts';
import { lookUpRoute } from '../lib/kernel/route.ts';
import { preferSysctl } from '../lib/kernel/sysctl.ts';
import { isKernelError } from '../lib/netlink/libc.ts';

const port = integer({ min: 0, max: 65535 });
const optionalAddress = convert(string(), (text) =>
  text === '' ? undefined : addressSchema.decode(text, 'hostIP'),
);
const conditions = array(string(), { description: 'Further matches that a packet must meet, word by word.' });

const config = {
  backend: string({
    values: backendNames,
    description: 'What to map ports with; by default iptables where it is installed, else nftables.',
  }),
  snat: withDefault(
    boolean({ description: 'Let the host itself, and the container, reach the mapped port.' }),
    true,
  ),
  masqAll: boolean({ description: 'Give every connection the address of the host.' }),
  markMasqBit: integer({
    max: 31,
    description: 'Bit of the packet mark that asks for masquerading; 13 by default.',
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
        hostIP: optionalAddress,
      }),
    ),
  }),
};

type Config = InferShape<typeof config>;
type PortMapCall = Call<Config>;

export const plugin = definePlugin({
  name: 'portmap',
  summary: 'Leads ports of the host to a container.',
  role: 'chained',
  capability: 'portMappings',
  config,

  explain: ({ backend, snat, masqAll }) => [
    `Leads the ports that the runtime passes to the container, by ${backend ?? 'iptables, or nftables where that is not installed'}`,
    'Refuses a port that another container has',
    snat ? 'Lets the host itself and the container reach them as well (snat)' : '',
    masqAll ? 'Gives every connection the address of the host' : '',
    'Forgets tracked UDP connections to these ports',
  ],

  validate(config) {
    refuseContradiction(config);
    if (config.backend === 'nftables') refuseIptablesKeys(config);
  },

  async add(call) {
    const result = requirePrevResult(call);
    const mappings = mappingsOf(call);
    const options = optionsOf(call);
    const containers = containerAddresses(call, result);
    if (mappings.length === 0 || containers.length === 0) return result;
    const backend = await chosenBackend(call);
    const { attachment, netns } = call;
    const request = {
      attachment,
      netns,
      containers,
      mappings,
      options,
      neighbours: () => neighboursOf(call),
    };
    const freed = await backend.add(request, (what, step) => call.undo(what, step));
    if (options.snat) allowLocalhost(call, containers);
    forgetConnections(call, [...stalePorts(mappings, containers), ...freed.filter(isUdp)]);
    return result;
  },

  async del(call) {
    await eachBackend(call, (backend) =>
      backend.del(call.attachment, () => neighboursOf(call), hintsOf(call)),
    );
  },

  async check(call) {
    const mappings = mappingsOf(call);
    const containers = containerAddresses(call, requirePrevResult(call));
    if (mappings.length === 0) return;
    const backend = await chosenBackend(call);
    await backend.check({ attachment: call.attachment, containers, mappings, options: optionsOf(call) });
  },

  async status(call) {
    optionsOf(call);
    (await chosenBackend(call)).probe();
  },

  async gc(call) {
    await eachBackend(call, (backend) => backend.gc(call.network, call.validAttachments));
  },
});

/**
 * Removes mappings. Unless the configuration fixes a backend, the host may have changed it since the ports
 * were mapped.
 */
async function eachBackend(
  call: PortMapCall,
  remove: (backend: PortMapBackend) => Promise<MappedPort[]>,
): Promise<void> {
  const removed: MappedPort[] = [];
  await runAll(
    call,
    ...backendNames.map((name) =>
      startBackground(async () => {
        removed.push(...(await remove(await portMapBackend(name, call.programs))));
      }),
    ),
    () => forgetConnections(call, removed.filter(isUdp)),
  );
}

/** Has the kernel forget tracked UDP connections. Where it cannot, they end by themselves in time. */
function forgetConnections(call: PortMapCall, ports: readonly StalePort[]): void {
  try {
    forgetUdp(ports);
  } catch (error) {
    call.warn(
      `UDP packets may still go where they went before, for some minutes: ${(error as Error).message}`,
    );
  }
}

/** What the runtime tells on DEL. A configuration that ADD would refuse tells nothing. */
function hintsOf(call: PortMapCall): PortMapHints | undefined {
  const containers = call.prevResult ? containerAddresses(call, call.prevResult) : [];
  if (containers.length === 0) return undefined;
  try {
    return { containers, mappings: mappingsOf(call), options: optionsOf(call) };
  } catch {
    return undefined;
  }
}

/** The ports that the runtime asks for. Ones without a port of the host are for other plugins. */
function mappingsOf(call: PortMapCall): PortMapping[] {
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

function chosenBackend({ config, programs }: PortMapCall): Promise<PortMapBackend> {
  return portMapBackend(config.backend ?? defaultBackend(programs), programs);
}

function optionsOf({ config, programs }: PortMapCall): PortMapOptions {
  const {
    snat,
    masqAll = false,
    markMasqBit,
    externalSetMarkChain,
    conditionsV4 = [],
    conditionsV6 = [],
  } = config;
  refuseContradiction(config);
  if ((config.backend ?? defaultBackend(programs)) === 'nftables') refuseIptablesKeys(config);
  return {
    snat,
    masqAll,
    markMasqBit: markMasqBit ?? 13,
    externalSetMarkChain,
    conditions: { 4: conditionsV4, 6: conditionsV6 },
  };
}

function refuseContradiction({ markMasqBit, externalSetMarkChain }: Config): void {
  if (markMasqBit !== undefined && externalSetMarkChain)
    throw new Error(
      '"markMasqBit" and "externalSetMarkChain" are both set. Take one out: the chain sets a bit of its own',
    );
}

function refuseIptablesKeys({ markMasqBit, externalSetMarkChain }: Config): void {
  const foreign =
    markMasqBit !== undefined ? 'markMasqBit' : externalSetMarkChain ? 'externalSetMarkChain' : undefined;
  if (foreign)
    throw new Error(`"${foreign}" is for iptables only. Take it out, or set "backend" to "iptables"`);
}

/** The first address of each family that the container has on this interface. */
function containerAddresses(call: PortMapCall, result: Result): Prefix[] {
  const own = result.ips.filter((ip) => {
    const entry = ip.interface === undefined ? undefined : result.interfaces[ip.interface];
    return !entry || (entry.name === call.ifname && entry.sandbox);
  });
  return ([4, 6] as const).flatMap(
    (family) => own.find(({ address }) => address.family === family)?.address ?? [],
  );
}

/** The addresses of the container's other interfaces. */
function neighboursOf({ sandboxIfPresent: sandbox, ifname }: PortMapCall): Address[] {
  if (!sandbox) return [];
  const own = getLink(sandbox.socket, ifname)?.index;
  return listAddresses(sandbox.socket)
    .filter(({ link }) => link !== own)
    .map(({ prefix }) => prefix.address);
}

/**
 * Lets connections from 127.0.0.1 leave the host towards the container; IPv6 has no such setting. Without a
 * route to the container there is nothing to let through, and where the setting cannot be written, the port
 * still serves everybody else.
 */
function allowLocalhost(call: PortMapCall, containers: readonly Prefix[]): void {
  const container = containers.find(({ family }) => family === 4);
  if (!container) return;
  let link: number | undefined;
  try {
    link = lookUpRoute(call.host, container.address)?.link;
  } catch (error) {
    if (!isKernelError(error, 'ENETUNREACH', 'EHOSTUNREACH', 'EACCES', 'EINVAL')) throw error;
  }
  const name = link === undefined ? undefined : getLink(call.host, link)?.name;
  if (name) preferSysctl(['ipv4', 'conf', name, 'route_localnet'], '1', (text) => call.warn(text));
}

function isUdp({ protocol }: { protocol: string }): boolean {
  return protocol === 'udp';
}

function stalePorts(mappings: readonly PortMapping[], containers: readonly Prefix[]): StalePort[] {
  const udp = mappings.filter(isUdp);
  return containers.flatMap(({ family, address }) =>
    udp
      .filter(({ hostIP }) => !hostIP || hostIP.isUnspecified || hostIP.family === family)
      .map(({ hostPort, hostIP }) => ({
        family,
        port: hostPort,
        address: hostIP?.isUnspecified ? undefined : hostIP,
        now: address,
      })),
  );
}
