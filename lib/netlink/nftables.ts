/**
 * nf_tables on the wire: tables, chains and rules as netlink requests, and rules read back.
 * Source: linux/netfilter/nf_tables.h; comments are written as libnftnl does, so that nft(8) shows them.
 */

import { isKernelError } from './libc.ts';
import {
  type Attribute,
  Attributes,
  be32Attr,
  be64Attr,
  bytesAttr,
  concat,
  Flag,
  listAttributes,
  nestedAttr,
  type Message as ReceivedMessage,
  type Request,
  stringAttr,
} from './message.ts';
import type { NetlinkSocket } from './socket.ts';

const NFNL_SUBSYS_NFTABLES = 10;
const Message = {
  NewTable: 0,
  NewChain: 3,
  DelChain: 5,
  NewRule: 6,
  GetRule: 7,
  DelRule: 8,
  GetGeneration: 16,
} as const;
const NFTA_LIST_ELEM = 1;
const NFTA_EXPR_NAME = 1;
const NFTA_EXPR_DATA = 2;
const NFTA_DATA_VALUE = 1;
const NFTA_DATA_VERDICT = 2;
const Table = { Name: 1, Flags: 2, Userdata: 6 } as const;
const Chain = { Table: 1, Name: 3, Hook: 4, Policy: 5, Type: 7, Userdata: 12 } as const;
const Rule = { Table: 1, Chain: 2, Handle: 3, Expressions: 4, Userdata: 7 } as const;
const NF_ACCEPT = 1;

/** Families of tables, of linux/netfilter.h. */
export const NftFamily = { inet: 1, ip: 2, bridge: 7, ip6: 10 } as const;
export type NftFamily = keyof typeof NftFamily;

/** A table by family and name. */
export interface NftTable {
  readonly family: NftFamily;
  readonly name: string;
}

/** Where in the kernel a base chain sits. */
export interface NftHook {
  readonly type: 'filter' | 'nat';
  /** NF_INET_* or NF_BR_*: prerouting 0, input 1, forward 2, output 3, postrouting 4. */
  readonly hook: number;
  readonly priority: number;
}

/** A rule as the kernel has it. */
export interface NftRule {
  handle: bigint;
  comment: string;
  /** What {@link addRule} was told of the owner. */
  owner: string;
  expressions: { name: string; data: Attributes }[];
}

/** Makes a table unless it is there. */
export function addTable({ family, name }: NftTable, comment?: string): Request {
  return request(`make nftables table "${family} ${name}"`, Message.NewTable, Flag.Create, family, [
    stringAttr(Table.Name, name),
    be32Attr(Table.Flags, 0),
    ...(comment ? [bytesAttr(Table.Userdata, userComment(comment))] : []),
  ]);
}

/** Makes a chain unless it is there. @param options.hook for a base chain, which accepts what it does not drop. */
export function addChain(
  table: NftTable,
  name: string,
  options: { hook?: NftHook; comment?: string } = {},
): Request {
  const { hook, comment } = options;
  return request(`make nftables chain "${table.name} ${name}"`, Message.NewChain, Flag.Create, table.family, [
    stringAttr(Chain.Table, table.name),
    stringAttr(Chain.Name, name),
    ...(hook
      ? [
          nestedAttr(Chain.Hook, [be32Attr(1, hook.hook), be32Attr(2, hook.priority >>> 0)]),
          be32Attr(Chain.Policy, NF_ACCEPT),
          stringAttr(Chain.Type, hook.type),
        ]
      : []),
    ...(comment ? [bytesAttr(Chain.Userdata, userComment(comment))] : []),
  ]);
}

/** Removes a chain, which must be empty and unused. */
export function deleteChain(table: NftTable, name: string): Request {
  return request(`remove nftables chain "${table.name} ${name}"`, Message.DelChain, 0, table.family, [
    stringAttr(Chain.Table, table.name),
    stringAttr(Chain.Name, name),
  ]);
}

/** Removes every rule of a chain, which must be there. */
export function flushChain(table: NftTable, chain: string): Request {
  return request(`flush nftables chain "${table.name} ${chain}"`, Message.DelRule, 0, table.family, [
    stringAttr(Rule.Table, table.name),
    stringAttr(Rule.Chain, chain),
  ]);
}

/**
 * Adds a rule at the end of a chain.
 * @param comment that nft(8) shows.
 * @param owner whose rule it is, which nft(8) keeps to itself; up to 100 bytes.
 */
export function addRule(
  table: NftTable,
  chain: string,
  expressions: readonly Attribute[],
  comment?: string,
  owner?: string,
): Request {
  return request(
    `add a rule to nftables chain "${table.name} ${chain}"`,
    Message.NewRule,
    Flag.Create | Flag.Append,
    table.family,
    [
      stringAttr(Rule.Table, table.name),
      stringAttr(Rule.Chain, chain),
      nestedAttr(Rule.Expressions, expressions),
      ...(comment ? [bytesAttr(Rule.Userdata, userComment(comment, owner))] : []),
    ],
  );
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

/** The rules of one chain; none when there is no such chain, or no nf_tables in the kernel. @throws NetlinkError */
export function listRules(socket: NetlinkSocket, table: NftTable, chain: string): NftRule[] {
  const dump = request(`list nftables chain "${table.name} ${chain}"`, Message.GetRule, 0, table.family, [
    stringAttr(Rule.Table, table.name),
    stringAttr(Rule.Chain, chain),
  ]);
  let messages: ReceivedMessage[];
  try {
    messages = socket.dump(dump);
  } catch (error) {
    // EINVAL is what nfnetlink says of a subsystem that it does not have.
    if (isKernelError(error, 'ENOENT', 'EINVAL', 'EOPNOTSUPP', 'EAFNOSUPPORT')) return [];
    throw error;
  }
  return messages.map(({ payload }) => {
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
 * What makes a chain hold these rules and no others: nothing when it does already. To touch a table, a chain or a rule that is there
 * keeps the one who does it, when the socket closes, until no processor uses the old one any more: some 15 ms.
 * @param rules expressions of each.
 */
export function replaceRules(
  socket: NetlinkSocket,
  table: NftTable,
  chain: string,
  rules: readonly (readonly Attribute[])[],
): Request[] {
  const shape = (expressions: NftRule['expressions']) =>
    expressions
      .map((one) => {
        const verdict = verdictData(one);
        return [one.name, hex(expressionValue(one)), verdict?.be32(1), verdict?.string(2)].join(' ');
      })
      .join();
  const present = listRules(socket, table, chain).map(({ expressions }) => shape(expressions));
  const wanted = rules.map((expressions) => shape(readExpressions(concat(expressions))));
  if (present.length === wanted.length && wanted.every((one, i) => one === present[i])) return [];
  return [flushChain(table, chain), ...rules.map((expressions) => addRule(table, chain, expressions))];
}

function readExpressions(list: Uint8Array = new Uint8Array()): NftRule['expressions'] {
  return listAttributes(list).map(([, value]) => {
    const expression = new Attributes(value);
    return {
      name: expression.string(NFTA_EXPR_NAME) ?? '',
      data: expression.nested(NFTA_EXPR_DATA) ?? new Attributes(new Uint8Array()),
    };
  });
}

function hex(bytes: Uint8Array | undefined): string {
  return bytes ? Buffer.from(bytes).toString('hex') : '';
}

/** Asks for the number of the ruleset, which tells that there is nf_tables in the kernel. */
export function getGeneration(): Request {
  return request('ask for the generation of nftables', Message.GetGeneration, 0, 'inet', []);
}

/** Carries out requests all together or not at all. @throws NetlinkError for the first that failed. */
export function transaction(socket: NetlinkSocket, requests: readonly Request[]): void {
  if (requests.length > 0) socket.transaction(NFNL_SUBSYS_NFTABLES, requests);
}

const register = 1;
const secondRegister = 2;
const verdictRegister = 0;
const comparison = { '==': 0, '!=': 1 } as const;
/** Verdicts of linux/netfilter/nf_tables.h. */
const verdicts = { drop: 0, accept: 1, jump: -3, goto: -4, return: -5 } as const;
const metaKeys = { iifname: 6, nfproto: 15, l4proto: 16 } as const;
const bases = { link: 0, network: 1, transport: 2 } as const;

/** Compares a property of the packet. */
export function meta(key: keyof typeof metaKeys, value: Uint8Array): Attribute[] {
  return [expression('meta', [be32Attr(2, metaKeys[key]), be32Attr(1, register)]), compare('==', value)];
}

/** Compares bytes of a header. @param mask leaves out the bits that do not count. */
export function payload(
  base: keyof typeof bases,
  offset: number,
  op: keyof typeof comparison,
  value: Uint8Array,
  mask?: Uint8Array,
): Attribute[] {
  const load = expression('payload', [
    be32Attr(1, register),
    be32Attr(2, bases[base]),
    be32Attr(3, offset),
    be32Attr(4, value.length),
  ]);
  if (!mask) return [load, compare(op, value)];
  const cut = expression('bitwise', [
    be32Attr(1, register),
    be32Attr(2, register),
    be32Attr(3, value.length),
    dataAttr(4, mask),
    dataAttr(5, new Uint8Array(value.length)),
  ]);
  return [load, cut, compare(op, value)];
}

/** The packet's destination is an address of this node. */
export function destinationIsLocal(): Attribute[] {
  const NFT_FIB_RESULT_ADDRTYPE = 3;
  const NFTA_FIB_F_DADDR = 2;
  const RTN_LOCAL = 2;
  return [
    expression('fib', [
      be32Attr(1, register),
      be32Attr(2, NFT_FIB_RESULT_ADDRTYPE),
      be32Attr(3, NFTA_FIB_F_DADDR),
    ]),
    compare('==', Uint8Array.of(RTN_LOCAL, 0, 0, 0)),
  ];
}

/** What happens to the packet. @param chain where "jump" and "goto" lead. */
export function verdict(name: keyof typeof verdicts, chain?: string): Attribute {
  return expression('immediate', [
    be32Attr(1, verdictRegister),
    nestedAttr(2, [
      nestedAttr(NFTA_DATA_VERDICT, [
        be32Attr(1, verdicts[name] >>> 0),
        ...(chain ? [stringAttr(2, chain)] : []),
      ]),
    ]),
  ]);
}

/** Gives the packet the address of the interface that it leaves by. */
export function masqueradeVerdict(): Attribute {
  return expression('masq', []);
}

/** Sends the connection elsewhere. @param family AF_INET or AF_INET6. @param port in network byte order. */
export function dnat(family: number, address: Uint8Array, port: Uint8Array): Attribute[] {
  const NFT_NAT_DNAT = 1;
  return [
    expression('immediate', [be32Attr(1, register), dataAttr(2, address)]),
    expression('immediate', [be32Attr(1, secondRegister), dataAttr(2, port)]),
    expression('nat', [
      be32Attr(1, NFT_NAT_DNAT),
      be32Attr(2, family),
      be32Attr(3, register),
      be32Attr(5, secondRegister),
    ]),
  ];
}

/** The value that a "cmp" or "immediate" expression holds; undefined for the others. */
export function expressionValue({ name, data }: NftRule['expressions'][number]): Uint8Array | undefined {
  if (name !== 'cmp' && name !== 'immediate') return undefined;
  return data.nested(name === 'cmp' ? 3 : 2)?.bytes(NFTA_DATA_VALUE);
}

/** What a rule does with the packet in the end, if that is a verdict. */
export function verdictOf(rule: NftRule): keyof typeof verdicts | undefined {
  const code = verdictData(rule.expressions.at(-1))?.be32(1);
  return (Object.keys(verdicts) as (keyof typeof verdicts)[]).find((name) => verdicts[name] >>> 0 === code);
}

/** The chain that a rule leads to, if it does. */
export function targetChain(rule: NftRule): string | undefined {
  return verdictData(rule.expressions.at(-1))?.string(2);
}

/** The verdict that an "immediate" expression holds. */
function verdictData(expression: NftRule['expressions'][number] | undefined): Attributes | undefined {
  return expression?.name === 'immediate' ? expression.data.nested(2)?.nested(NFTA_DATA_VERDICT) : undefined;
}

function compare(op: keyof typeof comparison, value: Uint8Array): Attribute {
  return expression('cmp', [be32Attr(1, register), be32Attr(2, comparison[op]), dataAttr(3, value)]);
}

function expression(name: string, data: readonly Attribute[]): Attribute {
  return nestedAttr(NFTA_LIST_ELEM, [stringAttr(NFTA_EXPR_NAME, name), nestedAttr(NFTA_EXPR_DATA, data)]);
}

function dataAttr(type: number, value: Uint8Array): Attribute {
  return nestedAttr(type, [bytesAttr(NFTA_DATA_VALUE, value)]);
}

/** What nft(8) takes at most. */
const commentLength = 128;

/**
 * Types of the texts in an object's user data: the comment is type 0 for tables, chains and rules alike, and libnftnl skips the types that it
 * does not know.
 */
const UserText = { Comment: 0, Owner: 0xc1 } as const;

/** Type, length and text with a final NUL, one behind the other. */
function userComment(comment: string, owner?: string): Uint8Array {
  const text = (type: number, value: Uint8Array) =>
    concat([Uint8Array.of(type, value.length + 1), value, Uint8Array.of(0)]);
  return concat([
    text(UserText.Comment, Buffer.from(comment).subarray(0, commentLength)),
    ...(owner ? [text(UserText.Owner, Buffer.from(owner))] : []),
  ]);
}

function readUserText(data: Uint8Array | undefined, wanted: number): string {
  for (let offset = 0; data && offset + 2 <= data.length; ) {
    const [type, length] = [data[offset]!, data[offset + 1]!];
    if (type === wanted) return Buffer.from(data.subarray(offset + 2, offset + 1 + length)).toString('utf8');
    offset += 2 + length;
  }
  return '';
}

/** struct nfgenmsg and attributes. */
function request(
  action: string,
  type: number,
  flags: number,
  family: NftFamily,
  attributes: readonly Attribute[],
): Request {
  return {
    action,
    type: (NFNL_SUBSYS_NFTABLES << 8) | type,
    flags,
    payload: concat([Uint8Array.of(NftFamily[family], 0, 0, 0), ...attributes]),
  };
}
