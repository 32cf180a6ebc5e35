/** Port mappings by nftables. */

import { type Family, families } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import type { Request } from '../netlink/message.ts';
import { addAgain, type NftRule } from '../netlink/nftables/rules.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import { changeNftables, mentions, requireNftables, withNftables } from './nftables.ts';
import {
  isClash,
  isDivided,
  type MappedPort,
  mappingsOf,
  type PortMapBackend,
  type PortMapping,
  type PortMapRequest,
  takenError,
} from './portmap-backend.ts';
import { collectConditions, readConditions, removeConditions } from './portmap-nft-conditions.ts';
import { type ReadMapping, readMapping } from './portmap-nft-mapping.ts';
import { missingMappings } from './portmap-nft-missing.ts';
import {
  addMappings,
  commentOf,
  createTable,
  identity,
  identityOf,
  isOf,
  isOfNetwork,
  listMappings,
  mayBeOf,
  type PlacedRule,
  removeMappings,
  tables,
} from './portmap-nft-rules.ts';
import { isHolderGone } from './portmap-notes.ts';

export const nftablesPortMap = (programs: Programs): PortMapBackend => ({
  async add(request, undo) {
    const { attachment, mappings, options } = request;
    const containers = request.containers.filter(({ family }) => mappingsOf(mappings, family).length > 0);
    const wanted = containers.map(({ family }) => family);
    if (wanted.some((family) => options.conditions[family].length > 0))
      // Reading them removes them itself, unless the kernel refuses that.
      undo('remove what nft has read', () =>
        changeNftables((socket) => removeConditions(socket, attachment)),
      );
    const conditions = await readConditions(programs, attachment, options, wanted);
    let freed: MappedPort[] = [];
    let replaced: PlacedRule[] = [];
    const addresses = containers.map(({ address }) => address);
    const isOwn = (rule: NftRule) => isOf(attachment, rule, addresses);
    const takeBack = () =>
      undo('take back the rules of the port mappings', () =>
        changeNftables((socket) => [
          ...wanted.flatMap((family) => removeMappings(socket, family, isOwn).requests),
          ...replaced.map(({ family, chain, rule }) => addAgain(tables[family], chain, rule)),
        ]),
      );
    changeNftables((socket, again) => {
      freed = [];
      replaced = [];
      return containers.flatMap((container) => {
        const { family } = container;
        const gone = findGone(socket, family, request);
        const stale = removeMappings(
          socket,
          family,
          (rule) => gone.some((clash) => isHeldBySame(clash, rule)) || isOwn(rule),
        );
        if (gone.length > 0) freed.push(...stale.ports);
        replaced.push(...stale.removed.filter(({ rule }) => isOwn(rule)));
        return [
          ...createTable(socket, family, options, conditions[family], again),
          ...stale.requests,
          ...addMappings(attachment, container, mappingsOf(mappings, family), options, conditions[family]),
        ];
      });
    }, takeBack);
    // No lock is held, so others may have mapped the port since it was looked at: the first rule gets it.
    withNftables((socket) => {
      for (const { family } of containers) {
        if (isDivided(request, family)) continue;
        const earlier = findClashes(socket, family, request).find(
          (clash) => clash.isEarlier && !isOfSamePod(clash, request),
        );
        if (earlier) throw clashError(earlier);
      }
    });
    return freed;
  },

  async free(request) {
    let freed: MappedPort[] = [];
    changeNftables((socket) => {
      const found = request.containers.map(({ family }) => {
        const gone = findGone(socket, family, request);
        const isGone = (rule: NftRule) => gone.some((clash) => isHeldBySame(clash, rule));
        return gone.length > 0 ? removeMappings(socket, family, isGone) : { requests: [], ports: [] };
      });
      freed = found.flatMap(({ ports }) => ports);
      return found.flatMap(({ requests }) => requests);
    });
    return freed;
  },

  async del(attachment, neighbours, hints) {
    const containers = hints?.containers.map(({ address }) => address) ?? [];
    // When nobody tells the address, rules without an owner may be for another interface of the container.
    const isOfNeighbour = (rule: NftRule) =>
      containers.length === 0 && !rule.owner && neighbours().some((address) => mentions(rule, address));
    return removeWhere(
      (rule) => isOf(attachment, rule, containers) && !isOfNeighbour(rule),
      (socket) => removeConditions(socket, attachment),
    );
  },

  async missing({ attachment, containers, mappings, options }) {
    return containers.flatMap((container) => {
      const own = mappingsOf(mappings, container.family);
      return own.length > 0 ? missingMappings(attachment, container, own, options, programs.once) : [];
    });
  },

  // The reference plugin's rules bear only the container ID, so that their network cannot be told.
  async gc(network, valid) {
    const keep = new Set(valid.map(identityOf));
    return removeWhere(
      (rule) => isOfNetwork(network, rule.owner) && !keep.has(identity(rule)),
      (socket) => collectConditions(socket, network, valid),
    );
  },

  async probe() {
    requireNftables();
  },
});

/**
 * Removes rules of both families.
 * @param besides what else is to be removed.
 * @returns the ports that the rules mapped.
 */
function removeWhere(
  isStale: (rule: NftRule) => boolean,
  besides: (socket: NetlinkSocket) => Request[],
): MappedPort[] {
  let ports: MappedPort[] = [];
  changeNftables((socket) => {
    const found = families.map((family) => removeMappings(socket, family, isStale));
    ports = found.flatMap((one) => one.ports);
    return [...found.flatMap(({ requests }) => requests), ...besides(socket)];
  });
  return ports;
}

/** A port to be mapped that another attachment has. */
interface Clash {
  readonly mapping: PortMapping;
  readonly rule: NftRule;
  readonly taken: ReadMapping;
  /** Whether the rule comes before ours. */
  readonly isEarlier: boolean;
}

function findClashes(
  socket: NetlinkSocket,
  family: Family,
  { attachment, containers, mappings }: PortMapRequest,
): Clash[] {
  const own = mappingsOf(mappings, family);
  if (own.length === 0) return [];
  const container = containers.find((prefix) => prefix.family === family)?.address;
  const clashes: Clash[] = [];
  let isEarlier = true;
  for (const rule of listMappings(socket, family)) {
    const taken = readMapping(rule);
    // The comment is the same on all networks of the container; its address tells which one the rule is for.
    const isOwn = rule.owner !== undefined && identity(rule) === identityOf(attachment);
    if (isOwn || (rule.comment === commentOf(attachment) && container?.equals(taken.container))) {
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

/**
 * The ports whose holder no longer exists.
 * @throws Error that names another holder that still exists, unless it may have the port as well.
 */
function findGone(socket: NetlinkSocket, family: Family, request: PortMapRequest): Clash[] {
  return findClashes(socket, family, request).filter((clash) => {
    const { rule } = clash;
    const isGone = isHolderGone({ containerId: rule.comment, isOn: (one) => mayBeOf(one, rule) });
    if (!isGone && !isDivided(request, family) && !isOfSamePod(clash, request)) throw clashError(clash);
    return isGone;
  });
}

/**
 * Whether it is the pod itself that has the port, by another network: runtimes pass the ports of a pod to
 * each of its networks, and the first rule leads to it.
 */
function isOfSamePod({ rule }: Clash, { attachment }: PortMapRequest): boolean {
  return rule.comment === commentOf(attachment) && !isOfNetwork(attachment.network, rule.owner ?? '');
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
