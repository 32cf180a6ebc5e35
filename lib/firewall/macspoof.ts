/**
 * Drops frames with a source MAC address other than the container's own, by nftables in the bridge family.
 */

import type { AttachmentId } from '../attachment.ts';
import { parseMac } from '../kernel/mac.ts';
import type { Once } from '../kernel/sharing.ts';
import type { Request } from '../netlink/message.ts';
import { expressionValue, meta, payload, verdict } from '../netlink/nftables/expressions.ts';
import { addChain, addTable, deleteChain, hasChain } from '../netlink/nftables/objects.ts';
import {
  addRule,
  deleteRule,
  flushChain,
  listRules,
  type NftRule,
  targetChain,
  verdictOf,
} from '../netlink/nftables/rules.ts';
import { cutComment, type NftTable } from '../netlink/nftables/wire.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import { changeNftables, Hook, interfaceName, seenRules, withNftables } from './nftables.ts';

const table: NftTable = { family: 'bridge', name: 'nat' };
const baseChain = 'PREROUTING';
const priority = -300;
const commentStart = 'macspoofchk-';

/**
 * Accepts only frames with the given source MAC address from a port of the bridge, which has just been
 * created.
 */
export function addMacSpoofCheck(attachment: AttachmentId, port: string, mac: string): void {
  const { chain, macChain, comment } = namesOf(attachment);
  changeNftables((socket) => {
    // An existing rule for a port of that name belongs to a port that is gone, and would drop the frames of
    // this one.
    const stale = listChecks(socket).filter((rule) => rule.comment === comment || portOf(rule) === port);
    const others = new Set(stale.flatMap((rule) => targetChain(rule) ?? []));
    others.delete(chain);
    return [
      addTable(table),
      addChain(table, baseChain, { hook: { type: 'filter', hook: Hook.prerouting, priority } }),
      addChain(table, chain),
      addChain(table, macChain),
      ...removal(socket, stale, [...others]),
      flushChain(table, chain),
      flushChain(table, macChain),
      addRule(table, baseChain, [...meta('iifname', interfaceName(port)), verdict('jump', chain)], comment),
      addRule(table, chain, [verdict('jump', macChain)], comment),
      addRule(table, macChain, [...payload('link', 6, '==', parseMac(mac)!), verdict('return')], comment),
      addRule(table, macChain, [verdict('drop')], comment),
    ];
  });
}

/** Removes the check. Doing it twice is no error. */
export function deleteMacSpoofCheck(attachment: AttachmentId): void {
  const { chain, comment } = namesOf(attachment);
  changeNftables((socket) =>
    removal(
      socket,
      listChecks(socket).filter((rule) => rule.comment === comment),
      [chain],
    ),
  );
}

/**
 * @param look shares what it finds with other calls of a read-only process.
 * @throws Error when frames with a wrong MAC address would get in.
 */
export function checkMacSpoofCheck(attachment: AttachmentId, port: string, mac: string, look?: Once): void {
  const { chain, macChain, comment } = namesOf(attachment);
  const jump = seenRules(table, baseChain, look).some(
    (rule) => rule.comment === comment && portOf(rule) === port && targetChain(rule) === chain,
  );
  withNftables((socket) => {
    const enters = listRules(socket, table, chain).some((rule) => targetChain(rule) === macChain);
    const own = Buffer.from(parseMac(mac)!);
    const [first, last, ...more] = listRules(socket, table, macChain);
    const passes = first?.expressions.some((expression) =>
      own.equals(expressionValue(expression) ?? Buffer.alloc(0)),
    );
    const intact =
      passes && verdictOf(first!) === 'return' && last && verdictOf(last) === 'drop' && more.length === 0;
    if (!jump || !enters || !intact)
      throw new Error(
        `The MAC address of frames from "${port}" is not checked: rules are missing or changed in table "bridge nat". Run "cni repair"`,
      );
  });
}

/**
 * Removes checks for ports that no longer exist. The rules name no network, but a port that does not exist is
 * nobody's.
 * @param exists tells whether the host has an interface of that name.
 */
export function collectMacSpoofChecks(exists: (port: string) => boolean): void {
  changeNftables((socket) => {
    const stale = listChecks(socket).filter((rule) => !exists(portOf(rule)));
    return removal(socket, stale, [...new Set(stale.flatMap((rule) => targetChain(rule) ?? []))]);
  });
}

/** The rules that lead from ports to their checks. */
function listChecks(socket: NetlinkSocket): NftRule[] {
  return listRules(socket, table, baseChain).filter((rule) => rule.comment.startsWith(commentStart));
}

/**
 * Removes the jump to a chain first, then what is in it, then the chain and the one that it leads to, as far
 * as they exist.
 */
function removal(socket: NetlinkSocket, jumps: readonly NftRule[], chains: readonly string[]): Request[] {
  const present = chains
    .flatMap((chain) => [chain, macChainOf(chain)])
    .filter((chain) => hasChain(socket, table, chain));
  return [
    ...jumps.map(({ handle }) => deleteRule(table, baseChain, handle)),
    ...present.map((chain) => flushChain(table, chain)),
    ...present.map((chain) => deleteChain(table, chain)),
  ];
}

function namesOf({ containerId, ifname }: AttachmentId): {
  chain: string;
  macChain: string;
  comment: string;
} {
  const chain = `cni-br-iface-${containerId}-${ifname}`;
  const comment = `${commentStart}${containerId}-${ifname}`;
  return { chain, macChain: macChainOf(chain), comment: cutComment(comment) };
}

function macChainOf(chain: string): string {
  return `${chain}-mac`;
}

function portOf(rule: NftRule): string {
  const compare = rule.expressions.find(({ name }) => name === 'cmp');
  const value = compare && expressionValue(compare);
  return value ? Buffer.from(value).toString('utf8').replace(/\0.*$/, '') : '';
}
