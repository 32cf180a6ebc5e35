/**
 * The operator's base chains that drop forwarded packets, or packets for the host itself, unless one of their
 * rules lets them through. Chains that drop only some packets are left alone: those are meant to be dropped.
 */

import type { Family } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import { stateBits } from '../netlink/nftables/expressions.ts';
import { type KnownPacket, matchesEvery } from '../netlink/nftables/matching.ts';
import { isOwnedTable, listBaseChains, type NftBaseChain } from '../netlink/nftables/objects.ts';
import { listRules, type NftRule, verdictOf } from '../netlink/nftables/rules.ts';
import type { NftFamily, NftTable } from '../netlink/nftables/wire.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import { isolationTable } from './isolation-nftables.ts';
import { Hook } from './nftables.ts';

const NFPROTO_IPV4 = 2;
const NFPROTO_IPV6 = 10;
const IPPROTO_TCP = 6;

/** What an operator may write to name a chain: family, table and chain. */
export const chainPattern = /^(inet|ip6?) [A-Za-z0-9_][A-Za-z0-9_./-]* [A-Za-z0-9_][A-Za-z0-9_./-]*$/;

/** A base chain that drops packets. */
export interface DroppingChain extends NftBaseChain {
  /** Families of these packets. */
  readonly families: readonly Family[];
}

/** A base chain as {@link chainPattern} has it. */
export function nameOf({ table, name }: NftBaseChain): string {
  return `${table.family} ${table.name} ${name}`;
}

/**
 * The base chains in which containers must be let through.
 * @param wanted the one that the operator names; when left out, each that drops what no rule lets through.
 * @throws Error when there is none of that name, or one that nftables must not change.
 */
export function droppingChains(
  socket: NetlinkSocket,
  programs: Programs,
  wanted: string | undefined,
): DroppingChain[] {
  if (wanted) {
    const [family] = wanted.split(' ') as [NftFamily];
    const chain = filterChainsOf(socket, family, 'forward').find((one) => nameOf(one) === wanted);
    if (chain) return [{ ...chain, families: familiesOfTable(chain.table) }];
    throw new Error(
      `"nftablesForwardChain" is "${wanted}", but there is no such base chain of type filter at hook forward. ` +
        'Load the ruleset that has it, correct the name, or remove the key to have the chains found that drop',
    );
  }
  const chains = chainsThatDrop(socket, 'forward');
  const managed = chains.find((chain) => isManagedByIptables(chain, programs));
  if (!managed) return chains;
  throw new Error(
    `Chain "${nameOf(managed)}" drops forwarded packets, and belongs to iptables, which could not read its table any more if nftables changed it. ` +
      'Set "backend" to "iptables"',
  );
}

/**
 * The base chains at a hook that drop every packet of a family that none of their rules lets through.
 * @throws NetlinkError
 */
export function chainsThatDrop(socket: NetlinkSocket, hook: 'input' | 'forward'): DroppingChain[] {
  return filterChains(socket, hook)
    .map((chain) => ({ ...chain, families: closedFamilies(socket, chain) }))
    .filter(({ families }) => families.length > 0);
}

/**
 * The base chains at a hook that drop some packets of a family by a rule of theirs, but not all that they do
 * not accept.
 * @throws NetlinkError
 */
export function chainsThatDropSome(socket: NetlinkSocket, hook: 'input' | 'forward'): DroppingChain[] {
  return filterChains(socket, hook).flatMap((chain) => {
    const closed = closedFamilies(socket, chain);
    const families = familiesOfTable(chain.table).filter((family) => !closed.includes(family));
    const dropsSome = families.length > 0 && listRules(socket, chain.table, chain.name).some(drops);
    return dropsSome ? [{ ...chain, families }] : [];
  });
}

/** Families whose packets a table sees. */
export function familiesOfTable({ family }: NftTable): Family[] {
  return family === 'inet' ? [4, 6] : [family === 'ip' ? 4 : 6];
}

/** The base chains that filter at a hook, other than ours. */
export function filterChains(socket: NetlinkSocket, hook: 'input' | 'forward'): NftBaseChain[] {
  return (['inet', 'ip', 'ip6'] as const).flatMap((family) => filterChainsOf(socket, family, hook));
}

/** @throws Error when a chain cannot be changed because its table belongs to a running program. */
export function requireChangeable(socket: NetlinkSocket, { table, name }: NftBaseChain): void {
  if (!isOwnedTable(socket, table)) return;
  const isFirewalld = table.name === 'firewalld';
  throw new Error(
    `Chain "${table.family} ${table.name} ${name}" drops forwarded packets, and only ${isFirewalld ? 'firewalld' : 'the program that made it'} can change it. ` +
      (isFirewalld
        ? 'Set "backend" to "firewalld"'
        : 'Have that program let the containers through, and name another chain in "nftablesForwardChain"'),
  );
}

function filterChainsOf(
  socket: NetlinkSocket,
  family: NftFamily,
  wanted: 'input' | 'forward',
): NftBaseChain[] {
  return listBaseChains(socket, family).filter(
    ({ type, hook, table }) =>
      type === 'filter' &&
      hook === Hook[wanted] &&
      !(table.family === isolationTable.family && table.name === isolationTable.name),
  );
}

/**
 * The families for which a chain drops whatever it does not let through, by its policy or by a rule. Chains
 * that it jumps to are left to whoever made them.
 */
function closedFamilies(socket: NetlinkSocket, chain: NftBaseChain): Family[] {
  const families = familiesOfTable(chain.table);
  if (chain.drops) return families;
  const dropping = listRules(socket, chain.table, chain.name).filter(drops);
  return families.filter((family) =>
    dropping.some(({ expressions }) => matchesEvery(socket, chain.table, expressions, firstPackets[family])),
  );
}

/**
 * The first packet of a TCP connection. A chain is closed to a family when it drops these whatever their
 * addresses, ports and interfaces: it may reject them in a different way for each family and protocol, and
 * may have accepted packets of existing connections before.
 */
const firstPackets: Record<Family, KnownPacket> = {
  4: firstPacket(NFPROTO_IPV4, 0x08, 0x00),
  6: firstPacket(NFPROTO_IPV6, 0x86, 0xdd),
};

function firstPacket(family: number, ...etherType: number[]): KnownPacket {
  return {
    meta: {
      nfproto: Uint8Array.of(family),
      protocol: Uint8Array.from(etherType),
      l4proto: Uint8Array.of(IPPROTO_TCP),
    },
    connectionState: stateBits(['new']),
  };
}

function drops(rule: NftRule): boolean {
  return verdictOf(rule) === 'drop' || rule.expressions.at(-1)?.name === 'reject';
}

/**
 * iptables-nft keeps its rules in tables of these names, and refuses to read them when there is anything in
 * them that it does not know.
 */
function isManagedByIptables({ table, name }: NftBaseChain, programs: Programs): boolean {
  if (table.family === 'inet' || table.name !== 'filter' || name !== 'FORWARD') return false;
  return programs.has(table.family === 'ip' ? 'iptables' : 'ip6tables');
}
