/** Port mappings by nftables. */

import type { AttachmentId } from '../attachment.ts';
import type { Family, Prefix } from '../ip.ts';
import { ProgramMissingError, type Programs } from '../kernel/programs.ts';
import { isMadeOf, listRules, type NftRule } from '../netlink/nftables/rules.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import { families } from './iptables.ts';
import { changeNftables, requireNftables, seenRules, withNftables } from './nftables.ts';
import {
  boundAddress,
  describePort,
  isClash,
  isSameAddress,
  type MappedPort,
  mappingsOf,
  type PortMapBackend,
  type PortMapOptions,
  type PortMapping,
  type PortMapRequest,
  takenError,
} from './portmap-backend.ts';
import { forgetSandbox, forgetStaleSandboxes, isHolderGone, rememberSandbox } from './portmap-holders.ts';
import {
  addMappings,
  commentOf,
  createTable,
  identity,
  identityOf,
  isOf,
  isOfNetwork,
  listMappings,
  mappingRules,
  mayBeOf,
  mentions,
  type ReadMapping,
  readMapping,
  removeMappings,
  tables,
} from './portmap-nft-rules.ts';

export const nftablesPortMap = (programs: Programs): PortMapBackend => ({
  async add(request, undo) {
    const { attachment, netns, mappings, options } = request;
    const containers = request.containers.filter(({ family }) => mappingsOf(mappings, family).length > 0);
    let freed: MappedPort[] = [];
    undo('forget whose the port mappings are', rememberSandbox(attachment, netns));
    const takeBack = () =>
      undo(
        'take back the rules of the port mappings',
        () => void removeWhere((rule) => rule.owner !== '' && isOf(attachment, rule)),
      );
    changeNftables((socket, again) => {
      freed = [];
      return containers.flatMap((container) => {
        const { family, address } = container;
        const gone = findClashes(socket, family, request);
        for (const clash of gone) refuseLiving(clash);
        const stale = removeMappings(
          socket,
          family,
          (rule) => gone.some((clash) => isHeldBySame(clash, rule)) || isOf(attachment, rule, [address]),
        );
        if (gone.length > 0) freed.push(...stale.ports);
        return [
          ...createTable(socket, family, options, again),
          ...stale.requests,
          ...addMappings(attachment, container, mappingsOf(mappings, family), options),
        ];
      });
    }, takeBack);
    for (const { family } of containers) await addConditions(programs, family, options);
    // No lock is held, so others may have mapped the port since it was looked at: the first rule gets it.
    withNftables((socket) => {
      for (const { family } of containers) {
        const [earlier] = findClashes(socket, family, request).filter(({ isEarlier }) => isEarlier);
        if (earlier) throw clashError(earlier);
      }
    });
    return freed;
  },

  async del(attachment, _neighbours, hints) {
    const containers = hints?.containers.map(({ address }) => address);
    const removed = removeWhere((rule) => isOf(attachment, rule, containers));
    // Another interface of the container may have mappings of the other backend.
    if (removed.length > 0) forgetSandbox(attachment);
    return removed;
  },

  async check({ attachment, containers, mappings }) {
    for (const container of containers) {
      const table = tables[container.family];
      const rules = seenRules(table, 'hostports', programs.once).filter(
        ({ comment }) => comment === commentOf(attachment),
      );
      const own = mappingsOf(mappings, container.family);
      if (own.length === 0) continue;
      for (const mapping of own) {
        const mapped = rules
          .map(readMapping)
          .some(
            (rule) =>
              rule.port === mapping.hostPort &&
              rule.protocol === mapping.protocol &&
              isSameAddress(rule.hostIP, boundAddress(mapping)) &&
              rule.containerPort === mapping.containerPort &&
              container.address.equals(rule.container),
          );
        if (!mapped)
          throw new Error(
            `${describePort(mapping)} does not lead to ${container.address}: a rule is missing from table "${table.family} ${table.name}". Run "cni repair"`,
          );
      }
      for (const chain of ['prerouting', 'output'])
        if (seenRules(table, chain, programs.once).length === 0)
          throw new Error(
            `Chain "${chain}" of table "${table.family} ${table.name}" is empty, so no port of the host is mapped. Run "cni repair"`,
          );
    }
  },

  async missing({ attachment, containers, mappings, options }) {
    return withNftables((socket) =>
      containers.flatMap((container) => {
        const own = mappingsOf(mappings, container.family);
        return own.length > 0 ? missingOf(socket, attachment, container, own, options) : [];
      }),
    );
  },

  // The reference plugin's rules bear the container ID alone, so that which network they are of cannot be
  // told.
  async gc(network, valid) {
    const keep = new Set(valid.map(identityOf));
    const removed = removeWhere((rule) => isOfNetwork(network, rule.owner) && !keep.has(identity(rule)));
    forgetStaleSandboxes(network, valid);
    return removed;
  },

  probe() {
    requireNftables();
  },
});

/** What is missing of a family's mappings, and of what all attachments share, by chain. */
function missingOf(
  socket: NetlinkSocket,
  attachment: AttachmentId,
  container: Prefix,
  mappings: readonly PortMapping[],
  options: PortMapOptions,
): string[] {
  const { family } = container;
  const table = tables[family];
  const name = `table "${table.family} ${table.name}"`;
  const isEmpty = (chain: string) => listRules(socket, table, chain).length === 0;
  const isCut =
    createTable(socket, family, options, false).length > 0 || isEmpty('prerouting') || isEmpty('output');
  const lost = mappingRules(container, mappings, options).filter(
    ({ chain, expressions }) =>
      !listRules(socket, table, chain).some(
        (rule) => rule.comment === commentOf(attachment) && isMadeOf(rule, expressions),
      ),
  );
  const chains = [...new Set(lost.map(({ chain }) => chain))];
  return [
    ...(isCut ? [`rules of chains "prerouting" and "output" in ${name}`] : []),
    ...chains.map((chain) => {
      const count = lost.filter((rule) => rule.chain === chain).length;
      return `${count} ${count === 1 ? 'rule' : 'rules'} of chain "${chain}" in ${name}`;
    }),
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
  // One transaction: what nft refuses leaves the other containers' ports as they are.
  const lines = ['prerouting', 'output'].map(
    (chain) =>
      `flush chain ${name} cni_hostport ${chain}\n` +
      `add rule ${name} cni_hostport ${chain} ${words.join(' ')} fib daddr type local jump hostports_all\n`,
  );
  const { status, stderr } = await programs.run('nft', ['-f', '-'], lines.join('')).catch((error: Error) => {
    if (!(error instanceof ProgramMissingError)) throw error;
    throw new Error(
      `"conditionsV${family}" needs the program "nft". Install the package "nftables" on the host`,
    );
  });
  if (status !== 0) throw new Error(`nft refuses "conditionsV${family}": ${stderr.trim().split('\n')[0]}`);
}

/** Removes rules of both families. @returns the ports that they mapped. */
function removeWhere(isStale: (rule: NftRule) => boolean): MappedPort[] {
  let ports: MappedPort[] = [];
  changeNftables((socket) => {
    const found = families.map((family) => removeMappings(socket, family, isStale));
    ports = found.flatMap((one) => one.ports);
    return found.flatMap(({ requests }) => requests);
  });
  return ports;
}

/** A port that is to be mapped and that another attachment has. */
interface Clash {
  readonly mapping: PortMapping;
  readonly rule: NftRule;
  readonly taken: ReadMapping;
  /** Whether the rule stands before ours. */
  readonly isEarlier: boolean;
}

function findClashes(
  socket: NetlinkSocket,
  family: Family,
  { attachment, containers, mappings, options }: PortMapRequest,
): Clash[] {
  const own = mappingsOf(mappings, family);
  if (own.length === 0 || options.conditions[family].length > 0) return [];
  const container = containers.find((prefix) => prefix.family === family)?.address;
  const clashes: Clash[] = [];
  let isEarlier = true;
  for (const rule of listMappings(socket, family)) {
    const taken = readMapping(rule);
    // The comment is the container's on every network; its address tells which one the rule is of.
    if (rule.comment === commentOf(attachment) && container?.equals(taken.container)) {
      isEarlier = false;
      continue;
    }
    const mapping = own.find(
      ({ hostPort, protocol, ...one }) =>
        taken.port === hostPort &&
        taken.protocol === protocol &&
        isClash({ hostPort, protocol, ...one }, taken.hostIP),
    );
    if (mapping) clashes.push({ mapping, rule, taken, isEarlier });
  }
  return clashes;
}

/** @throws Error that names the container that holds a port, unless it no longer exists. */
function refuseLiving(clash: Clash): void {
  const { rule } = clash;
  if (!isHolderGone({ containerId: rule.comment, isOn: (one) => mayBeOf(one, rule) }))
    throw clashError(clash);
}

/**
 * The reference plugin's rules have no owner; their container's address tells those of one network from those
 * of another.
 */
function isHeldBySame({ rule: held, taken }: Clash, rule: NftRule): boolean {
  if (identity(held) !== identity(rule)) return false;
  return rule.owner !== '' || (taken.container !== undefined && mentions(rule, taken.container));
}

function clashError({ mapping, rule, taken }: Clash): Error {
  return takenError(
    mapping,
    { containerId: rule.comment },
    `${taken.container ?? '?'} port ${taken.containerPort ?? '?'}`,
  );
}
