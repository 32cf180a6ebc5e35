/**
 * Whether a rule of nf_tables matches packets of which only some properties are known. Attributes and
 * registers are those of linux/netfilter/nf_tables.h.
 */

import type { Attributes } from '../message.ts';
import type { NetlinkSocket } from '../socket.ts';
import { comparison, expressionValue, metaKeys, NFT_CT_STATE, type NftExpression } from './expressions.ts';
import { getElement } from './sets.ts';
import type { NftTable } from './wire.ts';

/** What is known about a packet, in the form in which rules load it. */
export interface KnownPacket {
  readonly meta: Partial<Record<keyof typeof metaKeys, Uint8Array>>;
  /** Bits of the state of its connection. */
  readonly connectionState: Uint8Array;
}

const Load = { Register: 1, Key: 2 } as const;
const Bitwise = { Source: 1, Target: 2, Mask: 4, Xor: 5, Operation: 6 } as const;
const Compare = { Register: 1, Operator: 2 } as const;
const Lookup = { Set: 1, Source: 2, Target: 3, Flags: 5 } as const;
const NFT_LOOKUP_F_INV = 1;
const NFT_BITWISE_MASK_XOR = 0;
const NFTA_DATA_VALUE = 1;

/** Expressions that have no part in whether a rule matches, including what it does in the end. */
const withoutCondition = ['counter', 'log', 'immediate', 'reject'];

/**
 * Whether a rule matches every packet that has these properties, whatever its others are.
 * @param table the rule's, in whose sets it may look things up.
 */
export function matchesEvery(
  socket: NetlinkSocket,
  table: NftTable,
  expressions: readonly NftExpression[],
  packet: KnownPacket,
): boolean {
  const registers = new Map<number | undefined, Uint8Array>();
  const at = (register: number | undefined) => registers.get(register);
  const load = (register: number | undefined, value: Uint8Array | undefined) => {
    if (register && value) registers.set(register, value);
    return Boolean(register && value);
  };
  return expressions.every((expression) => {
    const { name, data } = expression;
    switch (name) {
      case 'meta':
      case 'ct':
        return load(data.be32(Load.Register), loaded(name, data.be32(Load.Key), packet));
      case 'bitwise':
        return load(data.be32(Bitwise.Target), masked(data, at(data.be32(Bitwise.Source))));
      case 'cmp':
        return isCompared(
          data.be32(Compare.Operator),
          at(data.be32(Compare.Register)),
          expressionValue(expression),
        );
      case 'lookup': {
        const key = at(data.be32(Lookup.Source));
        if (!key || data.be32(Lookup.Target) !== undefined) return false;
        const set = { table, name: data.string(Lookup.Set) ?? '' };
        const isElement = Array.isArray(socket.attempt(getElement(set, key))[0]);
        return isElement !== Boolean((data.be32(Lookup.Flags) ?? 0) & NFT_LOOKUP_F_INV);
      }
      default:
        return withoutCondition.includes(name);
    }
  });
}

function loaded(name: 'meta' | 'ct', key: number | undefined, packet: KnownPacket): Uint8Array | undefined {
  if (name === 'ct') return key === NFT_CT_STATE ? packet.connectionState : undefined;
  const known = (Object.keys(metaKeys) as (keyof typeof metaKeys)[]).find((one) => metaKeys[one] === key);
  return known && packet.meta[known];
}

function masked(data: Attributes, value: Uint8Array | undefined): Uint8Array | undefined {
  const [mask, xor] = [Bitwise.Mask, Bitwise.Xor].map((type) => data.nested(type)?.bytes(NFTA_DATA_VALUE));
  const operation = data.be32(Bitwise.Operation) ?? NFT_BITWISE_MASK_XOR;
  if (!value || !mask || !xor || operation !== NFT_BITWISE_MASK_XOR) return undefined;
  return value.map((byte, i) => (byte & mask[i]!) ^ xor[i]!);
}

function isCompared(
  operator: number | undefined,
  value: Uint8Array | undefined,
  other: Uint8Array | undefined,
): boolean {
  if (!value || !other) return false;
  const isEqual = Buffer.from(value).equals(other);
  if (operator === comparison['==']) return isEqual;
  return operator === comparison['!='] && !isEqual;
}
