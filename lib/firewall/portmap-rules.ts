/** The rules of port mappings in iptables. Names, comments, marks and order are the reference plugin's. */

import type { AttachmentId } from '../attachment.ts';
import { Address, type Family, families, type Prefix } from '../ip.ts';
import type { OwnRules, RuleSet } from './ensure.ts';
import { portMapChain, portMapComment } from './names.ts';
import {
  boundAddress,
  type MappedPort,
  mappingsOf,
  type PortMapCheck,
  type PortMapOptions,
  type PortMapping,
  type PortMapRequest,
} from './portmap-backend.ts';
import { commentWords, option, prefixWords, type Rule, type SharedRule, targetOf } from './rules.ts';

/** Sends the ports of each container to a chain of its own. */
export const entryChain = 'CNI-HOSTPORT-DNAT';
const markChain = 'CNI-HOSTPORT-SETMARK';
const masqueradeChain = 'CNI-HOSTPORT-MASQ';
/** How many ports the multiport match takes. */
const portsPerRule = 15;

/**
 * The families in which an attachment has mappings. A family gets its chain even when every mapping is bound
 * to an address of the other family.
 */
export function mappedFamilies({
  containers,
  mappings,
}: Pick<PortMapRequest, 'containers' | 'mappings'>): Family[] {
  if (mappings.length === 0) return [];
  return families.filter((family) => containers.some((prefix) => prefix.family === family));
}

/** Everything that a family's mappings need. */
export function ruleSetOf(
  family: Family,
  request: PortMapCheck & Partial<Pick<PortMapRequest, 'neighbours'>>,
): RuleSet {
  const { attachment, options, neighbours = () => [] } = request;
  const isMarking = options.snat && !options.externalSetMarkChain;
  return {
    chains: [entryChain, ...(isMarking ? [markChain, masqueradeChain] : [])],
    shared: sharedRules(options),
    own: {
      chain: portMapChain(attachment),
      rules: attachmentRules(family, request),
      outdated: (found) => withoutNeighbours(found, neighbours()),
    } satisfies OwnRules,
  };
}

/** The rules that are an attachment's own: those of its chain, and those that lead to it. */
export function attachmentRules(family: Family, request: PortMapCheck): Rule[] {
  const { attachment, containers, mappings, options } = request;
  const container = containers.find((prefix) => prefix.family === family);
  if (!container) return [];
  return [
    ...chainRules(attachment, container, mappingsOf(mappings, family), options),
    ...entryRules(attachment, family, mappings, options),
  ];
}

/**
 * Leaves out the rules of a container's other interfaces, which share the chain. A rule that leads to the
 * chain does not tell whose it is; its ports do.
 * @param rules of one chain, and those that lead to it.
 */
export function withoutNeighbours(rules: readonly Rule[], neighbours: readonly Address[]): Rule[] {
  const theirs = rules.filter((rule) => neighbours.some((address) => isMappingTo(rule, address)));
  if (theirs.length === 0) return [...rules];
  const portOf = (rule: Rule, port = option(rule, '--dport')) => `${option(rule, '-p')} ${port}`;
  const boundPortOf = (rule: Rule) => `${portOf(rule)} ${option(rule, '-d')}`;
  const [ports, boundPorts] = [new Set(theirs.map((rule) => portOf(rule))), new Set(theirs.map(boundPortOf))];
  return rules.filter((rule) => {
    if (targetOf(rule) === 'DNAT') return !theirs.includes(rule);
    if (option(rule, '--dport')) return !boundPorts.has(boundPortOf(rule));
    return !portsOf(rule).some((port) => ports.has(portOf(rule, String(port))));
  });
}

/** True when a rule maps a port to an address. */
export function isMappingTo(rule: Rule, address: Address): boolean {
  return (
    targetOf(rule) === 'DNAT' &&
    Boolean(option(rule, '--to-destination')?.startsWith(socketAddress(address, '')))
  );
}

/** The rules of an attachment's own chain. */
function chainRules(
  attachment: AttachmentId,
  container: Prefix,
  mappings: readonly PortMapping[],
  { snat, masqAll, externalSetMarkChain }: PortMapOptions,
): Rule[] {
  const chain = portMapChain(attachment);
  const local = container.family === 4 ? [Address.parse('127.0.0.1').toPrefix()] : [];
  const sources = !snat
    ? []
    : masqAll
      ? [[]]
      : [container, ...local].map((prefix) => prefixWords('-s', prefix));
  return mappings.flatMap((mapping) => {
    const { protocol, hostPort, containerPort } = mapping;
    const host = boundAddress(mapping);
    const match = [
      ...(host ? prefixWords('-d', host.toPrefix()) : []),
      '-p',
      protocol,
      '-m',
      protocol,
      '--dport',
      `${hostPort}`,
    ];
    return [
      ...sources.map((source) => ({
        chain,
        words: [...source, ...match, '-j', externalSetMarkChain || markChain],
      })),
      {
        chain,
        words: [...match, '-j', 'DNAT', '--to-destination', socketAddress(container.address, containerPort)],
      },
    ];
  });
}

/**
 * The rules that lead to an attachment's chain: as in the reference plugin, with all its ports in either
 * family.
 */
function entryRules(
  attachment: AttachmentId,
  family: Family,
  mappings: readonly PortMapping[],
  { conditions }: PortMapOptions,
): Rule[] {
  return portGroups(mappings).map(({ protocol, ports }) => ({
    chain: entryChain,
    words: [
      ...commentWords(portMapComment(attachment)),
      ...['-p', protocol, '-m', 'multiport', '--dports', ports.join(',')],
      ...conditions[family],
      ...['-j', portMapChain(attachment)],
    ],
  }));
}

/**
 * Ports by protocol, as many as one rule takes. As in the reference plugin, a port that is mapped for two
 * addresses of the host is named twice, as its CHECK looks for the whole rule.
 */
function portGroups(mappings: readonly PortMapping[]): { protocol: string; ports: number[] }[] {
  const protocols = [...new Set(mappings.map(({ protocol }) => protocol))].sort();
  return protocols.flatMap((protocol) => {
    const ports = mappings.filter((one) => one.protocol === protocol).map(({ hostPort }) => hostPort);
    const groups = [];
    for (let i = 0; i < ports.length; i += portsPerRule)
      groups.push({ protocol, ports: ports.slice(i, i + portsPerRule) });
    return groups;
  });
}

/** Rules that all attachments share, beginning with those of chains that are not ours. */
function sharedRules({ snat, markMasqBit, externalSetMarkChain }: PortMapOptions): SharedRule[] {
  const bit = `0x${(2 ** markMasqBit).toString(16)}`;
  const mark = `${bit}/${bit}`;
  const rules: SharedRule[] = ['PREROUTING', 'OUTPUT'].map((chain) => ({
    chain,
    words: ['-m', 'addrtype', '--dst-type', 'LOCAL', '-j', entryChain],
  }));
  if (!snat || externalSetMarkChain) return rules;
  return [
    ...rules,
    {
      chain: 'POSTROUTING',
      words: [...commentWords('CNI portfwd requiring masquerade'), '-j', masqueradeChain],
      first: true,
    },
    {
      chain: markChain,
      words: [...commentWords('CNI portfwd masquerade mark'), '-j', 'MARK', '--set-xmark', mark],
    },
    { chain: masqueradeChain, words: ['-m', 'mark', '--mark', mark, '-j', 'MASQUERADE'] },
  ];
}

/** True when a rule that leads to a chain does so for a mapping's port. */
export function leads(entry: Rule, { protocol, hostPort }: PortMapping): boolean {
  return option(entry, '-p') === protocol && portsOf(entry).includes(hostPort);
}

/** The ports that an entry rule sends on. */
function portsOf(entry: Rule): number[] {
  return (option(entry, '--dports') ?? '').split(',').filter(Boolean).map(Number);
}

/** True when a rule of an attachment's chain maps the port of a mapping. */
export function isMapping(rule: Rule, { protocol, hostPort }: PortMapping): boolean {
  return (
    targetOf(rule) === 'DNAT' &&
    option(rule, '-p') === protocol &&
    option(rule, '--dport') === String(hostPort)
  );
}

/** The ports that removed entry rules sent on. */
export function mappedPorts(family: Family, entries: readonly Rule[]): MappedPort[] {
  return entries.flatMap((rule) =>
    portsOf(rule).map((port) => ({ family, port, protocol: option(rule, '-p') ?? '' })),
  );
}

/** An address and a port, as "--to-destination" has them. */
function socketAddress(address: Address, port: number | ''): string {
  return address.family === 4 ? `${address}:${port}` : `[${address}]:${port}`;
}
