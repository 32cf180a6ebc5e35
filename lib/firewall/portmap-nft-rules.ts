/** The rules of port mappings in nftables, in the reference plugin's tables: one for each family. */

import type { AttachmentId } from '../attachment.ts';
import { Address, type Family, type Prefix } from '../ip.ts';
import type { Attribute, Request } from '../netlink/message.ts';
import { destinationIsLocal, masqueradeVerdict, verdict } from '../netlink/nftables/expressions.ts';
import { addChain, addTable } from '../netlink/nftables/objects.ts';
import {
  addRule,
  deleteRule,
  listRules,
  type NftRule,
  replaceRules,
  targetChain,
} from '../netlink/nftables/rules.ts';
import { cutComment, type NftTable } from '../netlink/nftables/wire.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import { networkTag } from './names.ts';
import { addressMatch, dnatTo, Hook, mentions, Priority, portMatch } from './nftables.ts';
import { boundAddress, type MappedPort, type PortMapOptions, type PortMapping } from './portmap-backend.ts';
import { hasConditions, readMapping } from './portmap-nft-mapping.ts';

export const tableComment = 'CNI portmap plugin';

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
/** The chain that jumps to both. */
const sharedChain = 'hostports_all';
export const masqueradeChain = 'masquerading';

/**
 * The requests that make the table with what all attachments share: none when the chains lead where they
 * should.
 * @param conditions of the network.
 * @param whole whether to make them even then.
 * @throws Error when others' ports depend on different conditions.
 */
export function createTable(
  socket: NetlinkSocket,
  family: Family,
  { snat }: PortMapOptions,
  conditions: readonly Attribute[],
  whole: boolean,
): Request[] {
  const table = tables[family];
  const entries = entryChains.map((name) => ({
    chain: addChain(table, name, { hook: { type: 'nat', hook: Hook[name], priority: Priority.dstnat } }),
    rules: entryRules(socket, family, name, conditions),
  }));
  const shared = replaceRules(socket, table, sharedChain, [
    [verdict('jump', olderChain)],
    [verdict('jump', mappingChain)],
  ]);
  if (shared.length === 0 && entries.every(({ rules }) => rules.length === 0) && !whole) return [];
  return [
    addTable(table, tableComment),
    addChain(table, mappingChain),
    addChain(table, olderChain),
    addChain(table, sharedChain),
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

/**
 * The requests that make a base chain lead to the mappings. Each of our mappings has the conditions of its
 * network. Those of the reference plugin and of earlier releases have none; the conditions of the last
 * network were put here, for all networks: as long as such mappings exist, these conditions stay, and
 * networks with other conditions are refused.
 */
function entryRules(
  socket: NetlinkSocket,
  family: Family,
  name: (typeof entryChains)[number],
  conditions: readonly Attribute[],
): Request[] {
  const table = tables[family];
  const way = [...destinationIsLocal(), verdict('jump', sharedChain)];
  const change = replaceRules(socket, table, name, [way]);
  if (change.length === 0) return [];
  const isConditional = listRules(socket, table, name).some(isConditionalEntry);
  if (!isConditional || listMappings(socket, family).every(hasConditions)) return change;
  if (replaceRules(socket, table, name, [[...conditions, ...way]]).length === 0) return [];
  throw new Error(
    `Chain "${name}" of table "${table.family} ${table.name}" leads to the ports of other containers under conditions that are not those of this network, ` +
      'as the reference plugin and earlier releases have them for all networks together. Delete these containers and add them again, which gives each port its own conditions, or set "backend" to "iptables"',
  );
}

/** Whether a rule of a base chain lets only some packets through to the mappings. */
export function isConditionalEntry(rule: NftRule): boolean {
  const isEntry = [sharedChain, ...mappingChains].includes(targetChain(rule) ?? '');
  const usual = ['immediate', 'fib,cmp,immediate'];
  return isEntry && !usual.includes(rule.expressions.map(({ name }) => name).join());
}

/** A rule that an attachment is to get. */
interface WantedRule {
  readonly chain: string;
  readonly expressions: readonly Attribute[];
}

/** The requests that add an attachment's mappings of one family. @param conditions of the network. */
export function addMappings(
  attachment: AttachmentId,
  container: Prefix,
  mappings: readonly PortMapping[],
  options: PortMapOptions,
  conditions: readonly Attribute[],
): Request[] {
  const table = tables[container.family];
  return mappingRules(container, mappings, options, conditions).map(({ chain, expressions }) =>
    addRule(table, chain, expressions, commentOf(attachment), ownerOf(attachment)),
  );
}

/** The rules of an attachment's mappings of one family. */
function mappingRules(
  container: Prefix,
  mappings: readonly PortMapping[],
  options: PortMapOptions,
  conditions: readonly Attribute[],
): WantedRule[] {
  const ports = mappings.map((mapping) => {
    const host = boundAddress(mapping);
    const expressions = [
      ...(host ? addressMatch('daddr', '==', host.toPrefix()) : []),
      ...portMatch(mapping.protocol, mapping.hostPort),
      ...conditions,
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

/** The sources from which connections to a container are masqueraded; undefined stands for every source. */
export function masqueradedSources(
  { address, family }: Prefix,
  { snat, masqAll }: PortMapOptions,
): (Address | undefined)[] {
  if (!snat) return [];
  if (masqAll) return [undefined];
  return family === 4 ? [address, Address.parse('127.0.0.1')] : [address];
}

/** A rule, and where it is. */
export interface PlacedRule {
  readonly family: Family;
  readonly chain: string;
  readonly rule: NftRule;
}

/** The requests that remove attachments' rules of one family, the rules, and the ports that they mapped. */
export function removeMappings(
  socket: NetlinkSocket,
  family: Family,
  isStale: (rule: NftRule) => boolean,
): { requests: Request[]; removed: PlacedRule[]; ports: MappedPort[] } {
  const table = tables[family];
  const removed = [...mappingChains, masqueradeChain].flatMap((chain) =>
    listRules(socket, table, chain)
      .filter(isStale)
      .map((rule) => ({ family, chain, rule })),
  );
  return {
    requests: removed.map(({ chain, rule }) => deleteRule(table, chain, rule.handle)),
    removed,
    ports: removed
      .filter(({ chain }) => chain !== masqueradeChain)
      .map(({ rule }) => readMapping(rule))
      .flatMap(({ port, protocol, hostIP: address, container: was }) =>
        port && protocol ? [{ family, port, protocol, address, was }] : [],
      ),
  };
}

/** The rules that hold a family's mappings, in the order in which packets meet them. */
export function listMappings(socket: NetlinkSocket, family: Family): NftRule[] {
  return mappingChains.toReversed().flatMap((chain) => listRules(socket, tables[family], chain));
}

/**
 * Whether a rule is an attachment's. The reference plugin's rules do not name their network.
 * @param containers addresses of the container, which tell the reference plugin's rules of this network from
 *   those of others; when none is known, all of them count.
 */
export function isOf(attachment: AttachmentId, rule: NftRule, containers: readonly Address[] = []): boolean {
  if (rule.owner) return identity(rule) === identityOf(attachment);
  if (rule.comment !== commentOf(attachment)) return false;
  return containers.length === 0 || containers.some((address) => mentions(rule, address));
}

/** Whether a rule may belong to a container on a network, as far as it says. */
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
