/** Expressions of nf_tables rules: what they match, and what happens to the packet. */

import {
  type Attribute,
  Attributes,
  be32Attr,
  bytesAttr,
  listAttributes,
  nestedAttr,
  stringAttr,
} from '../message.ts';
import { NFTA_LIST_ELEM } from './wire.ts';

const NFTA_EXPR_NAME = 1;
const NFTA_EXPR_DATA = 2;
const NFTA_DATA_VALUE = 1;
const NFTA_DATA_VERDICT = 2;

/** An expression as the kernel has it. */
export interface NftExpression {
  readonly name: string;
  readonly data: Attributes;
  /** As the kernel sent it, for {@link copyExpression}. */
  readonly payload: Uint8Array;
}

const register = 1;
const secondRegister = 2;
const verdictRegister = 0;
export const comparison = { '==': 0, '!=': 1 } as const;
/** Verdicts of linux/netfilter/nf_tables.h. */
const verdicts = { drop: 0, accept: 1, jump: -3, goto: -4, return: -5 } as const;
export type NftVerdict = keyof typeof verdicts;
export const metaKeys = {
  protocol: 1,
  iifname: 6,
  oifname: 7,
  nfproto: 15,
  l4proto: 16,
  ibrname: 17,
  obrname: 18,
} as const;
export const NFT_CT_STATE = 0;
const bases = { link: 0, network: 1, transport: 2 } as const;

/** Compares a property of the packet. */
export function meta(
  key: keyof typeof metaKeys,
  value: Uint8Array,
  op: keyof typeof comparison = '==',
): Attribute[] {
  return [loadMeta(key), compare(op, value)];
}

/** Looks a property of the packet up in a set. */
export function metaIn(key: keyof typeof metaKeys, set: string): Attribute[] {
  return [loadMeta(key), lookUp(set)];
}

/** Looks bytes of a header up in a set. */
export function payloadIn(
  base: keyof typeof bases,
  offset: number,
  length: number,
  set: string,
): Attribute[] {
  return [loadPayload(base, offset, length), lookUp(set)];
}

/** States of connections, by their bits (NF_CT_STATE_BIT). */
const connectionStates = { invalid: 1, established: 2, related: 4, new: 8 } as const;

/** States of connections as rules load and compare them. */
export function stateBits(states: readonly (keyof typeof connectionStates)[]): Uint8Array {
  return Uint8Array.of(
    states.reduce((sum, state) => sum | connectionStates[state], 0),
    0,
    0,
    0,
  );
}

/**
 * The packet belongs to a connection that is established already, or to one that is related to such a
 * connection.
 */
export function isEstablished(): Attribute[] {
  return [
    expression('ct', [be32Attr(2, NFT_CT_STATE), be32Attr(1, register)]),
    mask(stateBits(['established', 'related'])),
    compare('!=', new Uint8Array(4)),
  ];
}

/** Compares bytes of a header. @param bits mask of the bits that count. */
export function payload(
  base: keyof typeof bases,
  offset: number,
  op: keyof typeof comparison,
  value: Uint8Array,
  bits?: Uint8Array,
): Attribute[] {
  const load = loadPayload(base, offset, value.length);
  return [load, ...(bits ? [mask(bits)] : []), compare(op, value)];
}

/** The packet's destination is an address of this host. */
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
export function verdict(name: NftVerdict, chain?: string): Attribute {
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
export function expressionValue({ name, data }: NftExpression): Uint8Array | undefined {
  if (name !== 'cmp' && name !== 'immediate') return undefined;
  return data.nested(name === 'cmp' ? 3 : 2)?.bytes(NFTA_DATA_VALUE);
}

/** The set that a "lookup" expression looks in. */
export function lookedUpSet({ name, data }: NftExpression): string | undefined {
  return name === 'lookup' ? data.string(1) : undefined;
}

/** The verdict that an expression holds, and the chain that it leads to. */
export function verdictIn(expression: NftExpression | undefined): { verdict?: NftVerdict; chain?: string } {
  const data = verdictData(expression);
  const code = data?.be32(1);
  const verdict = (Object.keys(verdicts) as NftVerdict[]).find((name) => verdicts[name] >>> 0 === code);
  const chain = data?.string(2);
  return { ...(verdict && { verdict }), ...(chain && { chain }) };
}

/** The verdict that an "immediate" expression holds. */
function verdictData(expression: NftExpression | undefined): Attributes | undefined {
  return expression?.name === 'immediate' ? expression.data.nested(2)?.nested(NFTA_DATA_VERDICT) : undefined;
}

function loadMeta(key: keyof typeof metaKeys): Attribute {
  return expression('meta', [be32Attr(2, metaKeys[key]), be32Attr(1, register)]);
}

function loadPayload(base: keyof typeof bases, offset: number, length: number): Attribute {
  return expression('payload', [
    be32Attr(1, register),
    be32Attr(2, bases[base]),
    be32Attr(3, offset),
    be32Attr(4, length),
  ]);
}

function lookUp(set: string): Attribute {
  return expression('lookup', [stringAttr(1, set), be32Attr(2, register)]);
}

/** Leaves only some bits of what was loaded. */
function mask(bits: Uint8Array): Attribute {
  return expression('bitwise', [
    be32Attr(1, register),
    be32Attr(2, register),
    be32Attr(3, bits.length),
    dataAttr(4, bits),
    dataAttr(5, new Uint8Array(bits.length)),
  ]);
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

/** Reads the list of a rule's expressions. */
export function readExpressions(list: Uint8Array = new Uint8Array()): NftExpression[] {
  return listAttributes(list).map(([, value]) => {
    const expression = new Attributes(value);
    return {
      name: expression.string(NFTA_EXPR_NAME) ?? '',
      data: expression.nested(NFTA_EXPR_DATA) ?? new Attributes(new Uint8Array()),
      payload: value,
    };
  });
}

/** The same expression for another rule. */
export function copyExpression({ payload }: NftExpression): Attribute {
  return nestedAttr(NFTA_LIST_ELEM, [payload]);
}
