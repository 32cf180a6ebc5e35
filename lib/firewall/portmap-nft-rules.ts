/** The rules of port mappings in nftables, in the reference plugin's tables: one for each family. */

import type { AttachmentId } from '../attachment.ts';
import { Address, type Family, type Prefix } from '../ip.ts';
import type { Attribute, Request } from '../netlink/message.ts';
import {
  destinationIsLocal,
  expressionValue,
  masqueradeVerdict,
  verdict,
} from '../netlink/nftables/expressions.ts';
import { addChain, addTable } from '../netlink/nftables/objects.ts';
import { addRule, deleteRule, listRules, type NftRule, replaceRules } from '../netlink/nftables/rules.ts';
import { cutComment, type NftTable } from '../netlink/nftables/wire.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import { networkTag } from './names.ts';
import { addressMatch, dnatTo, Hook, Priority, portMatch, protocolNumber } from './nftables.ts';
import { boundAddress, type MappedPort, type PortMapOptions, type PortMapping } from './portmap-backend.ts';

const tableComment = 'CNI portmap plugin';

/** Where the mappings of a family are. */
export const tables: Record<Family, NftTable> = {
  4: { family: 'ip', name: 'cni_hostport' },
  6: { family: 'ip6', name: 'cni_hostport' },
};

/** Base chains, from which packets get to the mappings. */
export const entryChains = ['prerouting', 'output'] as const;
export const mappingChain = 'hostports';
/** Where older reference plugins put the mappings that are bound to an address of the host. */
export const olderChain = 'hostip_hostports';
const mappingChains = [mappingChain, olderChain] as const;
export const masqueradeChain = 'masquerading';

/**
 * The table with what all attachments share: nothing when the chains lead where they should.
 * @param whole even then.
 */
export function createTable(
  socket: NetlinkSocket,
  family: Family,
  { snat, conditions }: PortMapOptions,
  whole: boolean,
): Request[] {
  const table = tables[family];
  // With conditions the rule is left to nft(8), which alone can read them.
  const conditional = conditions[family].length > 0;
  const entries = entryChains.map((name) => ({
    chain: addChain(table, name, { hook: { type: 'nat', hook: Hook[name], priority: Priority.dstnat } }),
    rules: conditional
      ? []
      : replaceRules(socket, table, name, [[...destinationIsLocal(), verdict('jump', 'hostports_all')]]),
  }));
  const shared = replaceRules(socket, table, 'hostports_all', [
    [verdict('jump', olderChain)],
    [verdict('jump', mappingChain)],
  ]);
  if (shared.length === 0 && entries.every(({ rules }) => rules.length === 0) && !whole) return [];
  return [
    addTable(table, tableComment),
    addChain(table, mappingChain),
    addChain(table, olderChain),
    addChain(table, 'hostports_all'),
    ...shared,
    ...entries.flatMap(({ chain, rules }) => [chain, ...rules]),
    ...(snat
      ? [
          addChain(table, masqueradeChain, {
            hook: { type: 'nat', hook: Hook.postrouting, priority: Priority.srcnat },
          }),
        ]
      : []),
  ];
}

/** A rule of an attachment, to be. */
interface WantedRule {
  readonly chain: string;
  readonly expressions: readonly Attribute[];
}

/** What adds an attachment's mappings of one family. */
export function addMappings(
  attachment: AttachmentId,
  container: Prefix,
  mappings: readonly PortMapping[],
  options: PortMapOptions,
): Request[] {
  const table = tables[container.family];
  return mappingRules(container, mappings, options).map(({ chain, expressions }) =>
    addRule(table, chain, expressions, commentOf(attachment), ownerOf(attachment)),
  );
}

/** The rules of an attachment's mappings of one family. */
function mappingRules(
  container: Prefix,
  mappings: readonly PortMapping[],
  options: PortMapOptions,
): WantedRule[] {
  const ports = mappings.map((mapping) => {
    const host = boundAddress(mapping);
    const expressions = [
      ...(host ? addressMatch('daddr', '==', host.toPrefix()) : []),
      ...portMatch(mapping.protocol, mapping.hostPort),
      ...dnatTo(container.address, mapping.containerPort),
    ];
    return { chain: mappingChain, expressions };
  });
  const destination = addressMatch('daddr', '==', container.address.toPrefix());
  return [
    ...ports,
    ...masqueradedSources(container, options).map((source) => ({
      chain: masqueradeChain,
      expressions: [
        ...(source ? addressMatch('saddr', '==', source.toPrefix()) : []),
        ...destination,
        masqueradeVerdict(),
      ],
    })),
  ];
}

/** From where connections to a container are masqueraded, undefined for everywhere. */
export function masqueradedSources(
  { address, family }: Prefix,
  { snat, masqAll }: PortMapOptions,
): (Address | undefined)[] {
  if (!snat) return [];
  if (masqAll) return [undefined];
  return family === 4 ? [address, Address.parse('127.0.0.1')] : [address];
}

/** What removes attachments' rules of one family, and the ports they mapped. */
export function removeMappings(
  socket: NetlinkSocket,
  family: Family,
  isStale: (rule: NftRule) => boolean,
): { requests: Request[]; ports: MappedPort[] } {
  const table = tables[family];
  const mappings = mappingChains.map((chain) => ({
    chain,
    rules: listRules(socket, table, chain).filter(isStale),
  }));
  const masquerading = listRules(socket, table, masqueradeChain).filter(isStale);
  return {
    requests: [...mappings, { chain: masqueradeChain, rules: masquerading }].flatMap(({ chain, rules }) =>
      rules.map(({ handle }) => deleteRule(table, chain, handle)),
    ),
    ports: mappings
      .flatMap(({ rules }) => rules.map(readMapping))
      .flatMap(({ port, protocol }) => (port && protocol ? [{ family, port, protocol }] : [])),
  };
}

/** The rules that hold a family's mappings, in the order in which packets meet them. */
export function listMappings(socket: NetlinkSocket, family: Family): NftRule[] {
  return mappingChains.toReversed().flatMap((chain) => listRules(socket, tables[family], chain));
}

/** A mapping as a rule has it. */
export interface ReadMapping {
  hostIP?: Address | undefined;
  protocol?: string;
  port?: number;
  container?: Address;
  containerPort?: number;
}

/**
 * Reads a rule that this module or the reference plugin wrote: comparisons first, then where the connection
 * goes.
 */
export function readMapping(rule: NftRule): ReadMapping {
  const mapping: ReadMapping = {};
  for (const expression of rule.expressions) {
    const value = expressionValue(expression);
    if (!value) continue;
    if (value.length === 4 || value.length === 16)
      mapping[expression.name === 'cmp' ? 'hostIP' : 'container'] = Address.fromBytes(value);
    else if (value.length === 2)
      mapping[expression.name === 'cmp' ? 'port' : 'containerPort'] = (value[0]! << 8) | value[1]!;
    else if (value.length === 1)
      mapping.protocol = Object.keys(protocolNumber).find((name) => protocolNumber[name] === value[0]) ?? '';
  }
  return mapping;
}

/**
 * Whether a rule is an attachment's. The reference plugin's do not say of which network they are.
 * @param containers addresses of the container, which tell the reference plugin's rules of this network from
 *   those of others; when none is known, all are taken.
 */
export function isOf(attachment: AttachmentId, rule: NftRule, containers: readonly Address[] = []): boolean {
  if (rule.owner) return identity(rule) === identityOf(attachment);
  if (rule.comment !== commentOf(attachment)) return false;
  return containers.length === 0 || containers.some((address) => mentions(rule, address));
}

/** True when a rule compares with an address, or leads there. */
export function mentions(rule: NftRule, address: Address): boolean {
  const bytes = Buffer.from(address.toBytes());
  return rule.expressions.some((expression) => {
    const value = expressionValue(expression);
    return value !== undefined && bytes.equals(value);
  });
}

/** Whether a rule may be one of a container's on a network, as far as it tells. */
export function mayBeOf(
  attachment: Pick<AttachmentId, 'network' | 'containerId'>,
  { owner, comment }: NftRule,
): boolean {
  return comment === commentOf(attachment) && (owner === '' || isOfNetwork(attachment.network, owner));
}

/** Whether the owner of a rule is on a network. */
export function isOfNetwork(network: string, owner: string): boolean {
  return owner.startsWith(`${networkTag(network)}/`);
}

/** The reference plugin's comment. */
export function commentOf({ containerId }: Pick<AttachmentId, 'containerId'>): string {
  return cutComment(containerId);
}

/** Network and interface of an attachment, which the comment on its rules does not name. */
function ownerOf({ network, ifname }: Pick<AttachmentId, 'network' | 'ifname'>): string {
  return `${networkTag(network)}/${ifname}`;
}

/** Tells attachments apart. */
export function identityOf(attachment: AttachmentId): string {
  return `${ownerOf(attachment)}/${commentOf(attachment)}`;
}

/** The attachment of a rule, as {@link identityOf} names it. */
export function identity({ owner, comment }: NftRule): string {
  return `${owner}/${comment}`;
}
