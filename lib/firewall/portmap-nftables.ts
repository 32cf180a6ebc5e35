/** Port mappings by nftables. */

import { type Family, families } from '../ip.ts';
import { ProgramMissingError, type Programs } from '../kernel/programs.ts';
import type { NftRule } from '../netlink/nftables/rules.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import { changeNftables, requireNftables, withNftables } from './nftables.ts';
import {
  isClash,
  type MappedPort,
  mappingsOf,
  type PortMapBackend,
  type PortMapOptions,
  type PortMapping,
  type PortMapRequest,
  takenError,
} from './portmap-backend.ts';
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
  mentions,
  type ReadMapping,
  readMapping,
  removeMappings,
  tables,
} from './portmap-nft-rules.ts';
import { isHolderGone } from './portmap-notes.ts';

export const nftablesPortMap = (programs: Programs): PortMapBackend => ({
  async add(request, undo) {
    const { attachment, mappings, options } = request;
    const containers = request.containers.filter(({ family }) => mappingsOf(mappings, family).length > 0);
    let freed: MappedPort[] = [];
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
    return removeWhere((rule) => isOf(attachment, rule, containers));
  },

  async missing({ attachment, containers, mappings, options }) {
    return containers.flatMap((container) => {
      const own = mappingsOf(mappings, container.family);
      return own.length > 0 ? missingMappings(attachment, container, own, options, programs.once) : [];
    });
  },

  // The reference plugin's rules bear the container ID alone, so that which network they are of cannot be
  // told.
  async gc(network, valid) {
    const keep = new Set(valid.map(identityOf));
    return removeWhere((rule) => isOfNetwork(network, rule.owner) && !keep.has(identity(rule)));
  },

  async probe() {
    requireNftables();
  },
});

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
