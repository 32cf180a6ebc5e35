/**
 * What iptables has written to nf_tables, looked up without starting iptables, which would read whole chains
 * to find a single rule. Sources: linux/netfilter/nf_tables.h, nf_tables_compat.h, xt_multiport.h.
 */

import { isKernelError } from '../libc.ts';
import { Attributes, be64Attr, listAttributes, type Request, stringAttr } from '../message.ts';
import type { NetlinkSocket } from '../socket.ts';
import { readExpressions, verdictIn } from './expressions.ts';
import { absent, dumpIfPresent, hex, Message, type NftTable, request } from './wire.ts';

const Rule = { Table: 1, Chain: 2, Handle: 3, Expressions: 4, Userdata: 7 } as const;
/** What precedes the attributes of a rule: struct nfgenmsg. */
const headerSize = 4;

/** A rule as it is on the wire. */
export interface RawRule {
  readonly handle: bigint;
  /** The chain that it leads to, "" when it leads to none. */
  readonly target: string;
  /** Its expressions and comment in hexadecimal, without what counters have counted. */
  readonly content: string;
}

/** Every rule of a chain. @throws NetlinkError */
export function listRawRules(socket: NetlinkSocket, table: NftTable, chain: string): RawRule[] {
  return dumpIfPresent(socket, listRequest(table, chain), Rule.Handle).map(({ payload }) =>
    readRule(payload),
  );
}

/** Single rules by their handles. @returns undefined for those that do not exist. @throws NetlinkError */
export function getRawRules(
  socket: NetlinkSocket,
  table: NftTable,
  wanted: readonly { readonly chain: string; readonly handle: bigint }[],
): (RawRule | undefined)[] {
  const outcomes = socket.attempt(
    ...wanted.map(({ chain, handle }) =>
      request(`look up a rule of nftables chain "${table.name} ${chain}"`, Message.GetRule, 0, table.family, [
        stringAttr(Rule.Table, table.name),
        stringAttr(Rule.Chain, chain),
        be64Attr(Rule.Handle, handle),
      ]),
    ),
  );
  return outcomes.map((outcome) => {
    if (!(outcome instanceof Error)) return outcome[0] && readRule(outcome[0].payload);
    if (isKernelError(outcome, ...absent)) return undefined;
    throw outcome;
  });
}

/**
 * Searches a chain for rules that may be about one of these ports: those whose multiport match has it, and
 * those without such a match, as other releases of iptables may write it in another way.
 * @returns the chains that they lead to, "" for a rule that leads to none. They may have gone meanwhile.
 * @throws NetlinkError
 */
export function findChainsOfPorts(
  socket: NetlinkSocket,
  table: NftTable,
  chain: string,
  ports: readonly number[],
): string[] {
  const found = new Set<string>();
  try {
    socket.search(listRequest(table, chain), (data, from, to) => {
      if (mayHave(data, from, to, ports)) found.add(readRule(data.subarray(from, to)).target);
    });
    return [...found];
  } catch (error) {
    if (isKernelError(error, ...absent)) return [];
    throw error;
  }
}

function listRequest(table: NftTable, chain: string): Request {
  return request(`list nftables chain "${table.name} ${chain}"`, Message.GetRule, 0, table.family, [
    stringAttr(Rule.Table, table.name),
    stringAttr(Rule.Chain, chain),
  ]);
}

function readRule(payload: Uint8Array): RawRule {
  const attributes = new Attributes(payload.subarray(headerSize));
  const list = attributes.bytes(Rule.Expressions);
  const expressions = readExpressions(list);
  const content = listAttributes(list ?? new Uint8Array()).map(([, value], i) =>
    expressions[i]?.name === 'counter' ? 'counter' : hex(value),
  );
  return {
    handle: attributes.be64(Rule.Handle) ?? 0n,
    target: verdictIn(expressions.at(-1)).chain ?? '',
    content: [...content, hex(attributes.bytes(Rule.Userdata))].join(' '),
  };
}

/**
 * The beginning of a multiport match as the kernel writes it: name, revision and the match's own structure,
 * in this order.
 */
const multiportName = Buffer.from('multiport\0');
/** From there to struct xt_multiport_v1: the padded name, the revision, and the header of the structure. */
const structOffset = 12 + 8 + 4;
/** struct xt_multiport_v1. */
const Multiport = { count: 1, ports: 2, rangeFlags: 32, invert: 47, size: 48 } as const;
const infoHeader = [Multiport.size + 4, 3] as const;

/** Searches the bytes rather than decoding them, which would take as long as iptables does. */
function mayHave(data: Buffer, from: number, to: number, ports: readonly number[]): boolean {
  for (let at = data.indexOf(multiportName, from); at >= 0; at = data.indexOf(multiportName, at + 1)) {
    const start = at + structOffset;
    if (start + Multiport.size > to) return true;
    // Elsewhere, as in a comment, the name is only text.
    if (data.readUInt16LE(start - 4) === infoHeader[0] && data.readUInt16LE(start - 2) === infoHeader[1])
      return hasPort(data, start, ports);
  }
  return true;
}

/** @param start of struct xt_multiport_v1. */
function hasPort(data: Buffer, start: number, ports: readonly number[]): boolean {
  // Port mappings have no ranges or inversions, so that these need a closer look.
  if (data[start + Multiport.invert] !== 0) return true;
  const count = data[start + Multiport.count]!;
  for (let i = 0; i < count; i++) {
    if (data[start + Multiport.rangeFlags + i] !== 0) return true;
    if (ports.includes(data.readUInt16LE(start + Multiport.ports + 2 * i))) return true;
  }
  return false;
}
