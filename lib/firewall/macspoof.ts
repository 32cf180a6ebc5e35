/** Drops frames that bear another source MAC address than the container's own, by nftables in the bridge family. */

import type { AttachmentId } from '../attachment.ts';
import { parseMac } from '../kernel/mac.ts';
import type { Request } from '../netlink/message.ts';
import {
  addChain,
  addRule,
  addTable,
  deleteChain,
  deleteRule,
  expressionValue,
  flushChain,
  listRules,
  meta,
  type NftRule,
  type NftTable,
  payload,
  targetChain,
  verdict,
  verdictOf,
} from '../netlink/nftables.ts';
import type { NetlinkSocket } from '../netlink/socket.ts';
import { changeNftables, withNftables } from './nftables.ts';

const table: NftTable = { family: 'bridge', name: 'nat' };
const baseChain = 'PREROUTING';
const priority = -300;

/** Lets only frames with the given source MAC address in by a port of the bridge. */
export function addMacSpoofCheck(attachment: AttachmentId, port: string, mac: string): void {
  const { chain, macChain, comment } = namesOf(attachment);
  changeNftables((socket) => [
    addTable(table),
    addChain(table, baseChain, { hook: { type: 'filter', hook: 0, priority } }),
    addChain(table, chain),
    addChain(table, macChain),
    ...deleteJumps(socket, comment),
    flushChain(table, chain),
    flushChain(table, macChain),
    addRule(table, baseChain, [...meta('iifname', interfaceName(port)), verdict('jump', chain)], comment),
    addRule(table, chain, [verdict('jump', macChain)], comment),
    addRule(table, macChain, [...payload('link', 6, '==', parseMac(mac)!), verdict('return')], comment),
    addRule(table, macChain, [verdict('drop')], comment),
  ]);
}

/** Takes the check back. Doing it twice is no error. */
export function deleteMacSpoofCheck(attachment: AttachmentId): void {
  const { chain, comment } = namesOf(attachment);
  changeNftables((socket) => {
    const jumps = listRules(socket, table, baseChain).filter((rule) => rule.comment === comment);
    const chains = jumps.length > 0 || listRules(socket, table, chain).length > 0 ? [chain] : [];
    return removal(jumps, chains);
  });
}

/** @throws Error when frames with a wrong MAC address would get in. */
export function checkMacSpoofCheck(attachment: AttachmentId, port: string, mac: string): void {
  const { chain, macChain, comment } = namesOf(attachment);
  withNftables((socket) => {
    const jump = listRules(socket, table, baseChain).some(
      (rule) => rule.comment === comment && portOf(rule) === port && targetChain(rule) === chain,
    );
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
        `The MAC address of frames from "${port}" is not checked: rules are missing or changed in table "bridge nat". Delete the container and add it again`,
      );
  });
}

/**
 * Removes checks for ports that are no more. The rules name no network, but a port that does not exist is nobody's.
 * @param exists tells whether the node has an interface of that name.
 */
export function collectMacSpoofChecks(exists: (port: string) => boolean): void {
  changeNftables((socket) => {
    const stale = listRules(socket, table, baseChain).filter(
      (rule) => rule.comment.startsWith('macspoofchk-') && !exists(portOf(rule)),
    );
    return removal(stale, [...new Set(stale.flatMap((rule) => targetChain(rule) ?? []))]);
  });
}

/** The jump to a chain goes first, then what is in it, then the chain and the one that it leads to. */
function removal(jumps: readonly NftRule[], chains: readonly string[]): Request[] {
  return [
    ...jumps.map(({ handle }) => deleteRule(table, baseChain, handle)),
    ...chains.flatMap((chain) => [
      flushChain(table, chain),
      flushChain(table, `${chain}-mac`),
      deleteChain(table, chain),
      deleteChain(table, `${chain}-mac`),
    ]),
  ];
}

function deleteJumps(socket: NetlinkSocket, comment: string): Request[] {
  return listRules(socket, table, baseChain)
    .filter((rule) => rule.comment === comment)
    .map(({ handle }) => deleteRule(table, baseChain, handle));
}

function namesOf({ containerId, ifname }: AttachmentId): {
  chain: string;
  macChain: string;
  comment: string;
} {
  const chain = `cni-br-iface-${containerId}-${ifname}`;
  return { chain, macChain: `${chain}-mac`, comment: `macspoofchk-${containerId}-${ifname}` };
}

/** An interface's name as the kernel compares it: sixteen bytes. */
function interfaceName(name: string): Uint8Array {
  const bytes = new Uint8Array(16);
  bytes.set(Buffer.from(name));
  return bytes;
}

function portOf(rule: NftRule): string {
  const compare = rule.expressions.find(({ name }) => name === 'cmp');
  const value = compare && expressionValue(compare);
  return value ? Buffer.from(value).toString('utf8').replace(/\0.*$/, '') : '';
}
