/**
 * Port mappings by iptables: an attachment has a chain of its own, to which CNI-HOSTPORT-DNAT sends its
 * ports.
 */

import type { AttachmentId } from '../attachment.ts';
import { Address, type Family, families } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import { findChainsOfPorts } from '../netlink/nftables/xtables.ts';
import type { Neighbours } from './backend.ts';
import { collectEmptyChains } from './empty-chains.ts';
import { ensureRules, missingRules, undoChange } from './ensure.ts';
import {
  forFamilies,
  forInstalledFamilies,
  forUsableFamilies,
  programOf,
  requireUsable,
} from './iptables.ts';
import { list } from './listing.ts';
import { portMapChain, readComment } from './names.ts';
import { nftTableOf, withNftables } from './nftables.ts';
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
import { isHolderGone } from './portmap-notes.ts';
import {
  attachmentRules,
  entryChain,
  isMapping,
  isMappingTo,
  leads,
  mappedFamilies,
  mappedPorts,
  ruleSetOf,
  withoutNeighbours,
} from './portmap-rules.ts';
import { removeChains, removeRules } from './removal.ts';
import { option, type Rule, targetOf } from './rules.ts';
import { isNftVariant } from './xtables-lock.ts';

const table = 'nat';

export const iptablesPortMap = (programs: Programs): PortMapBackend => ({
  async add(request, undo) {
    const wanted = mappedFamilies(request);
    const freed: MappedPort[] = [];
    await forFamilies(wanted, async (family) => {
      freed.push(...(await freePorts(programs, family, request)));
    });
    await forFamilies(wanted, async (family) => {
      const change = await ensureRules(programs, family, table, ruleSetOf(family, request));
      undo('take back the rules of the port mappings', () => undoChange(programs, family, table, change));
      if (isDivided(request, family)) return;
      // No lock is held, so others may have mapped the port since it was looked at: the first rule gets it.
      const earlier = (await findClashes(programs, family, request)).find(
        (clash) => clash.isEarlier && !isOfSamePod(clash, request),
      );
      if (earlier) throw clashError(earlier);
    });
    return freed;
  },

  async free(request) {
    const freed: MappedPort[] = [];
    const work = async (family: Family) => {
      freed.push(...(await freePorts(programs, family, request)));
    };
    await forUsableFamilies(programs, table, work, mappedFamilies(request));
    return freed;
  },

  async del(attachment, neighbours, hints) {
    const chain = portMapChain(attachment);
    const removed: MappedPort[] = [];
    // Some runtimes do not pass the mappings on DEL: then both families are searched for rules.
    const wanted = hints
      ? families.filter((family) => hints.containers.some((prefix) => prefix.family === family))
      : families;
    await forInstalledFamilies(async (family) => {
      const told = hints ? attachmentRules(family, { ...hints, attachment }) : [];
      // Another interface of the container may have the same entry, and mappings in a family in which this
      // one has none.
      const known = told.some((rule) => rule.chain === chain) ? told : [];
      const entries = await removeRules(programs, family, table, {
        chain,
        from: entryChain,
        known,
        own(rules) {
          const all = rules.filter((rule) => rule.chain === chain || targetOf(rule) === chain);
          return withoutNeighbours(all, neighbours());
        },
      });
      removed.push(...mappedPorts(family, entries));
    }, wanted);
    return removed;
  },

  async missing(request) {
    const missing: string[] = [];
    // What leads to a chain without mappings may go with another interface of the container.
    const mapped = mappedFamilies(request).filter((one) => mappingsOf(request.mappings, one).length > 0);
    await forFamilies(mapped, async (family) => {
      missing.push(...(await missingRules(programs, family, table, ruleSetOf(family, request))));
    });
    return missing;
  },

  async gc(network, valid) {
    const keep = new Set(valid.map(portMapChain));
    const removed: MappedPort[] = [];
    await forInstalledFamilies(async (family) => {
      const entries = await removeChains(
        programs,
        family,
        table,
        entryChain,
        // A comment may be cut, and lack a part of the container ID; the chain's name depends on all of it.
        (chain, comment) =>
          chain.startsWith('CNI-DN-') && readComment(comment)?.network === network && !keep.has(chain),
      );
      removed.push(...mappedPorts(family, entries));
      // "SN" is from older releases of the reference plugin; the newer ones clean it up.
      await collectEmptyChains(
        programs,
        family,
        table,
        (chain) => /^CNI-[DS]N-[0-9a-f]{21}$/.test(chain) && !keep.has(chain),
      );
    });
    return removed;
  },

  async probe() {
    await requireUsable(programs, 4, table);
  },
});

/** A port to be mapped that another attachment has. */
interface Clash {
  readonly mapping: PortMapping;
  /** The rule that leads the port to the other's chain. */
  readonly entry: Rule;
  /** The rule in that chain. */
  readonly rule: Rule;
  /** Whether {@link entry} comes before ours. */
  readonly isEarlier: boolean;
}

/**
 * The ports that others have.
 * @param neighbours to look in the attachment's own chain as well, for ports of the container's other
 *   interfaces.
 */
async function findClashes(
  programs: Programs,
  family: Family,
  request: PortMapRequest,
  neighbours?: Neighbours,
): Promise<Clash[]> {
  const own = portMapChain(request.attachment);
  const mappings = mappingsOf(request.mappings, family);
  if (mappings.length === 0) return [];
  if (!mayClash(programs, family, neighbours ? undefined : own, mappings)) return [];
  const entries = (await list(programs, family, table, entryChain)) ?? [];
  const first = entries.findIndex((entry) => targetOf(entry) === own);
  const clashes: Clash[] = [];
  for (const [i, entry] of entries.entries()) {
    const chain = targetOf(entry);
    const led = mappings.filter((mapping) => leads(entry, mapping));
    if (!chain || led.length === 0 || (chain === own && !neighbours)) continue;
    const listed = (await list(programs, family, table, chain)) ?? [];
    const rules =
      chain === own
        ? listed.filter((rule) => neighbours?.().some((address) => isMappingTo(rule, address)))
        : listed;
    for (const mapping of led) {
      const rule = rules.find((one) => isMapping(one, mapping) && isClash(mapping, boundTo(one)));
      if (rule) clashes.push({ mapping, entry, rule, isEarlier: i < first });
    }
  }
  return clashes;
}

/** The address of the host that a rule is for; undefined if it is for every address. */
function boundTo(rule: Rule): Address | undefined {
  return Address.tryParse(option(rule, '-d')?.split('/')[0] ?? '');
}

/**
 * Whether another attachment may have one of the ports. In nf_tables, finding out costs little; elsewhere, a
 * closer look is needed.
 */
function mayClash(
  programs: Programs,
  family: Family,
  own: string | undefined,
  mappings: readonly PortMapping[],
): boolean {
  if (!isNftVariant(programs, programOf(family, '-restore'))) return true;
  const ports = mappings.map(({ hostPort }) => hostPort);
  const nat = nftTableOf(family, table);
  return withNftables((socket) => findChainsOfPorts(socket, nat, entryChain, ports)).some(
    (chain) => chain !== own,
  );
}

/**
 * Removes the mappings of a family that are in the way, as their containers no longer exist.
 * @throws Error that names another container that exists, unless it may have the port as well.
 */
async function freePorts(programs: Programs, family: Family, request: PortMapRequest): Promise<MappedPort[]> {
  const freed: MappedPort[] = [];
  for (const clash of await findClashes(programs, family, request, request.neighbours))
    if (isGone(clash)) freed.push(...(await freePort(programs, family, clash)));
    else if (!isDivided(request, family) && !isOfSamePod(clash, request)) throw clashError(clash);
  return freed;
}

/**
 * Whether it is the pod itself that has the port, by another network: runtimes pass the ports of a pod to
 * each of its networks, and the first rule leads to it.
 */
function isOfSamePod(clash: Clash, { attachment }: PortMapRequest): boolean {
  const owner = ownerOf(clash);
  return owner?.containerId === attachment.containerId && owner.network !== attachment.network;
}

function isGone(clash: Clash): boolean {
  const chain = targetOf(clash.entry)!;
  const { containerId = '' } = ownerOf(clash) ?? {};
  return containerId !== '' && isHolderGone({ containerId, isOn: (one) => portMapChain(one) === chain });
}

async function freePort(programs: Programs, family: Family, { entry }: Clash): Promise<MappedPort[]> {
  const chain = targetOf(entry)!;
  const entries = await removeRules(programs, family, table, {
    chain,
    from: entryChain,
    known: [],
    own: (rules) => rules.filter((rule) => targetOf(rule) === chain),
  });
  return mappedPorts(family, entries);
}

function clashError(clash: Clash): Error {
  const { containerId, network } = ownerOf(clash) ?? { containerId: '?', network: '?' };
  const where = option(clash.rule, '--to-destination') ?? '?';
  return takenError(clash.mapping, { containerId, network }, where);
}

function ownerOf({ entry }: Clash): Omit<AttachmentId, 'ifname'> | undefined {
  return readComment(option(entry, '--comment') ?? '');
}
