/** Rules of nf_tables: added, removed, and read back. */

import {
  type Attribute,
  Attributes,
  be64Attr,
  bytesAttr,
  concat,
  Flag,
  nestedAttr,
  type Request,
  stringAttr,
} from '../message.ts';
import type { NetlinkSocket } from '../socket.ts';
import {
  copyExpression,
  expressionValue,
  lookedUpSet,
  type NftExpression,
  type NftVerdict,
  readExpressions,
  verdictIn,
} from './expressions.ts';
import {
  dumpIfPresent,
  hex,
  Message,
  type NftTable,
  readUserText,
  request,
  UserText,
  userComment,
} from './wire.ts';

const Rule = { Table: 1, Chain: 2, Handle: 3, Expressions: 4, Userdata: 7 } as const;

/** A rule as the kernel has it. */
export interface NftRule {
  handle: bigint;
  comment: string;
  /** The owner that {@link addRule} was given. */
  owner: string;
  expressions: NftExpression[];
}

/** Removes every rule of a chain, which must exist. */
export function flushChain(table: NftTable, chain: string): Request {
  return request(`flush nftables chain "${table.name} ${chain}"`, Message.DelRule, 0, table.family, [
    stringAttr(Rule.Table, table.name),
    stringAttr(Rule.Chain, chain),
  ]);
}

/**
 * Adds a rule at the end of a chain.
 * @param comment that nft(8) shows.
 * @param owner whose rule it is, which nft(8) does not show; up to 100 bytes.
 */
export function addRule(
  table: NftTable,
  chain: string,
  expressions: readonly Attribute[],
  comment?: string,
  owner?: string,
): Request {
  return newRule(Flag.Append, table, chain, expressions, comment && userComment(comment, owner));
}

/** Like {@link addRule} at the head of a chain. */
export function insertRule(
  table: NftTable,
  chain: string,
  expressions: readonly Attribute[],
  comment: string,
): Request {
  return newRule(0, table, chain, expressions, userComment(comment));
}

function newRule(
  position: number,
  table: NftTable,
  chain: string,
  expressions: readonly Attribute[],
  userdata: Uint8Array | '' | undefined,
): Request {
  return request(
    `add a rule to nftables chain "${table.name} ${chain}"`,
    Message.NewRule,
    Flag.Create | position,
    table.family,
    [
      stringAttr(Rule.Table, table.name),
      stringAttr(Rule.Chain, chain),
      nestedAttr(Rule.Expressions, expressions),
      ...(userdata ? [bytesAttr(Rule.Userdata, userdata)] : []),
    ],
  );
}

/** Adds a rule again that has been removed, at the end of its chain. */
export function addAgain(table: NftTable, chain: string, { expressions, comment, owner }: NftRule): Request {
  return addRule(table, chain, expressions.map(copyExpression), comment, owner);
}

/** Removes a rule. */
export function deleteRule(table: NftTable, chain: string, handle: bigint): Request {
  return request(
    `remove a rule from nftables chain "${table.name} ${chain}"`,
    Message.DelRule,
    0,
    table.family,
    [stringAttr(Rule.Table, table.name), stringAttr(Rule.Chain, chain), be64Attr(Rule.Handle, handle)],
  );
}

/**
 * The rules of one chain; none when there is no such chain, or no nf_tables in the kernel.
 * @throws NetlinkError
 */
export function listRules(socket: NetlinkSocket, table: NftTable, chain: string): NftRule[] {
  const dump = request(`list nftables chain "${table.name} ${chain}"`, Message.GetRule, 0, table.family, [
    stringAttr(Rule.Table, table.name),
    stringAttr(Rule.Chain, chain),
  ]);
  return dumpIfPresent(socket, dump, Rule.Handle).map(({ payload }) => {
    const attributes = new Attributes(payload.subarray(4));
    return {
      handle: attributes.be64(Rule.Handle) ?? 0n,
      comment: readUserText(attributes.bytes(Rule.Userdata), UserText.Comment),
      owner: readUserText(attributes.bytes(Rule.Userdata), UserText.Owner),
      expressions: readExpressions(attributes.bytes(Rule.Expressions)),
    };
  });
}

/**
 * The requests that make a chain hold these rules and no others: none when it does already. Whoever touches
 * an existing table, chain or rule has to wait, when the socket closes, until no processor uses the old one
 * any more: some 15 ms.
 * @param rules expressions of each.
 */
export function replaceRules(
  socket: NetlinkSocket,
  table: NftTable,
  chain: string,
  rules: readonly (readonly Attribute[])[],
): Request[] {
  const present = listRules(socket, table, chain);
  if (present.length === rules.length && present.every((one, i) => isMadeOf(one, rules[i]!))) return [];
  return [flushChain(table, chain), ...rules.map((expressions) => addRule(table, chain, expressions))];
}

/** True when a rule consists of these expressions. */
function isMadeOf(rule: NftRule, expressions: readonly Attribute[]): boolean {
  return shapeOf(rule.expressions) === shapeOf(readExpressions(concat(expressions)));
}

function shapeOf(expressions: readonly NftExpression[]): string {
  return expressions
    .map((one) => {
      const { verdict, chain } = verdictIn(one);
      return [one.name, hex(expressionValue(one)), lookedUpSet(one), verdict, chain].join(' ');
    })
    .join();
}

/** What a rule does with the packet in the end, if that is a verdict. */
export function verdictOf(rule: NftRule): NftVerdict | undefined {
  return verdictIn(rule.expressions.at(-1)).verdict;
}

/** The chain that a rule leads to, if it does. */
export function targetChain(rule: NftRule): string | undefined {
  return verdictIn(rule.expressions.at(-1)).chain;
}
