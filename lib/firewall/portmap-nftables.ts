/** Port mappings by nftables, in the reference plugin's tables: one for each family. */

import type { AttachmentId } from '../attachment.ts';
import { Address, type Family, type Prefix } from '../ip.ts';
import { acquireLock } from '../kernel/lock.ts';
import { ProgramMissingError, type Programs } from '../kernel/programs.ts';
import type { Attribute, Request } from '../netlink/message.ts';
import {
  addChain,
  addRule,
  addTable,
  deleteRule,
  destinationIsLocal,
  expressionValue,
  flushChain,
  listRules,
  masqueradeVerdict,
  type NftRule,
  type NftTable,
  replaceRules,
  verdict,
} from '../netlink/nftables.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import { hashName } from './names.ts';
import {
  addressMatch,
  changeNftables,
  dnatTo,
  Hook,
  Priority,
  portMatch,
  protocolNumber,
  requireNftables,
  withNftables,
} from './nftables.ts';
import {
  boundAddress,
  type MappedPort,
  mappingsOf,
  type PortMapBackend,
  type PortMapOptions,
  type PortMapping,
  portMapLock,
} from './portmap.ts';

const families: readonly Family[] = [4, 6];
const tableComment = 'CNI portmap plugin';
const tables: Record<Family, NftTable> = {
  4: { family: 'ip', name: 'cni_hostport' },
  6: { family: 'ip6', name: 'cni_hostport' },
};

export const nftablesPortMap = (programs: Programs): PortMapBackend => ({
  async add(attachment, containers, mappings, options) {
    // Between looking whether a port is free and taking it, nobody else may.
    using _ = await acquireLock(portMapLock);
    changeNftables((socket, again) => {
      const requests: Request[] = [];
      for (const container of containers) {
        const own = mappingsOf(mappings, container.family);
        if (own.length === 0) continue;
        refuseTaken(socket, attachment, container, own, options);
        requests.push(
          ...setUp(socket, container.family, options, again),
          ...deletion(socket, container.family, (rule) => isOf(attachment, rule, [container.address]))
            .requests,
          ...containerRules(attachment, container, own, options),
        );
      }
      return requests;
    });
    for (const { family } of containers) await addConditions(programs, family, options);
  },

  async del(attachment, hints) {
    const containers = hints?.containers.map(({ address }) => address);
    return removeWhere((rule) => isOf(attachment, rule, containers));
  },

  async check(attachment, containers, mappings) {
    withNftables((socket) => {
      for (const container of containers) {
        const table = tables[container.family];
        const rules = listRules(socket, table, 'hostports').filter(
          ({ comment }) => comment === commentOf(attachment),
        );
        for (const mapping of mappingsOf(mappings, container.family)) {
          const mapped = rules
            .map(readMapping)
            .some(
              (rule) =>
                rule.port === mapping.hostPort &&
                rule.protocol === mapping.protocol &&
                rule.containerPort === mapping.containerPort &&
                container.address.equals(rule.container),
            );
          if (!mapped)
            throw new Error(
              `Port ${mapping.hostPort}/${mapping.protocol} of the node does not lead to ${container.address}: a rule is missing from table "${table.family} ${table.name}". Delete the container and add it again`,
            );
        }
        for (const chain of ['prerouting', 'output'])
          if (mappings.length > 0 && listRules(socket, table, chain).length === 0)
            throw new Error(
              `Chain "${chain}" of table "${table.family} ${table.name}" is empty, so no port of the node is mapped. Add any container to set it up again`,
            );
      }
    });
  },

  // The reference plugin's rules bear the container ID alone, so that which network they are of cannot be told.
  async gc(network, valid) {
    const keep = new Set(valid.map((one) => identityOf({ network, ...one })));
    return removeWhere(
      (rule) => rule.owner.startsWith(`${networkHash(network)}/`) && !keep.has(identity(rule)),
    );
  },

  async probe() {
    requireNftables();
  },
});

/** The table with what all containers share: nothing when the chains lead where they should. @param whole even then. */
function setUp(
  socket: NetlinkSocket,
  family: Family,
  { snat, conditions }: PortMapOptions,
  whole: boolean,
): Request[] {
  const table = tables[family];
  // With conditions the rule is left to nft(8), which alone can read them.
  const conditional = conditions[family].length > 0;
  const entries = (['prerouting', 'output'] as const).map((name) => ({
    chain: addChain(table, name, { hook: { type: 'nat', hook: Hook[name], priority: Priority.dstnat } }),
    rules: conditional
      ? [flushChain(table, name)]
      : replaceRules(socket, table, name, [[...destinationIsLocal(), verdict('jump', 'hostports_all')]]),
  }));
  const shared = replaceRules(socket, table, 'hostports_all', [
    [verdict('jump', 'hostip_hostports')],
    [verdict('jump', 'hostports')],
  ]);
  if (shared.length === 0 && entries.every(({ rules }) => rules.length === 0) && !whole) return [];
  return [
    addTable(table, tableComment),
    addChain(table, 'hostports'),
    addChain(table, 'hostip_hostports'),
    addChain(table, 'hostports_all'),
    ...shared,
    ...entries.flatMap(({ chain, rules }) => [chain, ...rules]),
    ...(snat
      ? [
          addChain(table, 'masquerading', {
            hook: { type: 'nat', hook: Hook.postrouting, priority: Priority.srcnat },
          }),
        ]
      : []),
  ];
}

function containerRules(
  attachment: AttachmentId,
  container: Prefix,
  mappings: readonly PortMapping[],
  { snat, masqAll }: PortMapOptions,
): Request[] {
  const table = tables[container.family];
  const comment = commentOf(attachment);
  const ports = mappings.map((mapping) => {
    const host = boundAddress(mapping);
    return addRule(
      table,
      'hostports',
      [
        ...(host ? addressMatch('daddr', '==', host.toPrefix()) : []),
        ...portMatch(mapping.protocol, mapping.hostPort),
        ...dnatTo(container.address, mapping.containerPort),
      ],
      comment,
      ownerOf(attachment),
    );
  });
  if (!snat) return ports;
  const destination = addressMatch('daddr', '==', container.address.toPrefix());
  const sources: Attribute[][] = masqAll ? [[]] : [addressMatch('saddr', '==', container.address.toPrefix())];
  if (!masqAll && container.family === 4)
    sources.push(addressMatch('saddr', '==', Address.parse('127.0.0.1').toPrefix()));
  return [
    ...ports,
    ...sources.map((source) =>
      addRule(
        table,
        'masquerading',
        [...source, ...destination, masqueradeVerdict()],
        comment,
        ownerOf(attachment),
      ),
    ),
  ];
}

/** Conditions are in nft's own language, so nft adds the rules that hold them. */
async function addConditions(
  programs: Programs,
  family: Family,
  { conditions }: PortMapOptions,
): Promise<void> {
  const words = conditions[family];
  if (words.length === 0) return;
  if (words.some((word) => /[;{}\n\r\0]/.test(word)))
    throw new Error(
      `"conditionsV${family}" holds ";", "{", "}" or a line break. Write one match of nft there, word by word`,
    );
  const { family: name } = tables[family];
  const lines = ['prerouting', 'output'].map(
    (chain) =>
      `add rule ${name} cni_hostport ${chain} ${words.join(' ')} fib daddr type local jump hostports_all\n`,
  );
  const { status, stderr } = await programs.run('nft', ['-f', '-'], lines.join('')).catch((error: Error) => {
    if (!(error instanceof ProgramMissingError)) throw error;
    throw new Error(
      `"conditionsV${family}" needs the program "nft". Install the package "nftables" on the node`,
    );
  });
  if (status !== 0) throw new Error(`nft refuses "conditionsV${family}": ${stderr.trim().split('\n')[0]}`);
}

/** Removes rules of both families. @returns the ports that they mapped. */
function removeWhere(isStale: (rule: NftRule) => boolean): MappedPort[] {
  let ports: MappedPort[] = [];
  changeNftables((socket) => {
    const found = families.map((family) => deletion(socket, family, isStale));
    ports = found.flatMap((one) => one.ports);
    return found.flatMap(({ requests }) => requests);
  });
  return ports;
}

/** What removes containers' rules, and the ports they mapped. */
function deletion(
  socket: NetlinkSocket,
  family: Family,
  isStale: (rule: NftRule) => boolean,
): { requests: Request[]; ports: MappedPort[] } {
  const table = tables[family];
  const hostports = ['hostports', 'hostip_hostports'].map((chain) => ({
    chain,
    rules: listRules(socket, table, chain).filter(isStale),
  }));
  const masquerading = listRules(socket, table, 'masquerading').filter(isStale);
  return {
    requests: [...hostports, { chain: 'masquerading', rules: masquerading }].flatMap(({ chain, rules }) =>
      rules.map(({ handle }) => deleteRule(table, chain, handle)),
    ),
    ports: hostports
      .flatMap(({ rules }) => rules.map(readMapping))
      .flatMap(({ port, protocol }) => (port && protocol ? [{ family, port, protocol }] : [])),
  };
}

function refuseTaken(
  socket: NetlinkSocket,
  attachment: AttachmentId,
  container: Prefix,
  mappings: readonly PortMapping[],
  { conditions }: PortMapOptions,
): void {
  if (conditions[container.family].length > 0) return;
  const table = tables[container.family];
  for (const rule of ['hostports', 'hostip_hostports'].flatMap((chain) => listRules(socket, table, chain))) {
    const taken = readMapping(rule);
    // The comment is the container's on every network; its address tells which one the rule is of.
    if (rule.comment === commentOf(attachment) && container.address.equals(taken.container)) continue;
    const clash = mappings.find((mapping) => {
      const wanted = boundAddress(mapping);
      return (
        taken.port === mapping.hostPort &&
        taken.protocol === mapping.protocol &&
        (!taken.hostIP || !wanted || wanted.equals(taken.hostIP))
      );
    });
    if (clash)
      throw new Error(
        `Port ${clash.hostPort}/${clash.protocol} of the node is taken by container "${rule.comment}", where it leads to ${taken.container ?? '?'} port ${taken.containerPort ?? '?'}. ` +
          'Choose another hostPort, or delete that container',
      );
  }
}

interface ReadMapping {
  hostIP?: Address;
  protocol?: string;
  port?: number;
  container?: Address;
  containerPort?: number;
}

/** Reads a rule that this module or the reference plugin wrote: comparisons first, then where the connection goes. */
function readMapping(rule: NftRule): ReadMapping {
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

function mentions(rule: NftRule, address: Address): boolean {
  const bytes = Buffer.from(address.toBytes());
  return rule.expressions.some((expression) => {
    const value = expressionValue(expression);
    return value !== undefined && bytes.equals(value);
  });
}

/**
 * Whether a rule is an attachment's. The reference plugin's do not say of which network they are.
 * @param containers addresses of the container, which tell the reference plugin's rules of this network from those of others; when none is
 *   known, all are taken.
 */
function isOf(attachment: AttachmentId, rule: NftRule, containers: readonly Address[] = []): boolean {
  if (rule.owner) return identity(rule) === identityOf(attachment);
  if (rule.comment !== commentOf(attachment)) return false;
  return containers.length === 0 || containers.some((address) => mentions(rule, address));
}

/** The reference plugin's comment; at 128 bytes nft(8) takes no more. */
function commentOf({ containerId }: Pick<AttachmentId, 'containerId'>): string {
  return Buffer.from(containerId).subarray(0, 128).toString('utf8');
}

/** What the comment leaves open. */
function ownerOf({ network, ifname }: Pick<AttachmentId, 'network' | 'ifname'>): string {
  return `${networkHash(network)}/${ifname}`;
}

function networkHash(network: string): string {
  return hashName(16, '', network);
}

function identityOf(attachment: AttachmentId): string {
  return `${ownerOf(attachment)}/${commentOf(attachment)}`;
}

function identity({ owner, comment }: NftRule): string {
  return `${owner}/${comment}`;
}
