/**
 * nf_tables on the wire: what its requests have in common. Source: linux/netfilter/nf_tables.h; texts in user
 * data are written as libnftnl does, so that nft(8) shows comments.
 */

import { isKernelError } from '../libc.ts';
import {
  type Attribute,
  Attributes,
  be32Attr,
  concat,
  type Message as ReceivedMessage,
  type Request,
} from '../message.ts';
import type { NetlinkSocket } from '../socket.ts';

const NFNL_SUBSYS_NFTABLES = 10;
const NFNL_BATCH_GENID = 1;
const NFTA_GEN_ID = 1;

/** Message types. */
export const Message = {
  NewTable: 0,
  GetTable: 1,
  NewChain: 3,
  GetChain: 4,
  DelChain: 5,
  NewRule: 6,
  GetRule: 7,
  DelRule: 8,
  NewSet: 9,
  GetSet: 10,
  NewSetElement: 12,
  GetSetElement: 13,
  DelSetElement: 14,
  GetGeneration: 16,
} as const;

/** The attribute that has the name of the table, in objects of every kind. */
const NFTA_TABLE = 1;
/** An attribute that is an element of a list. */
export const NFTA_LIST_ELEM = 1;

/** Families of tables, of linux/netfilter.h. */
export const NftFamily = { inet: 1, ip: 2, bridge: 7, ip6: 10 } as const;
export type NftFamily = keyof typeof NftFamily;

/** A table by family and name. */
export interface NftTable {
  readonly family: NftFamily;
  readonly name: string;
}

/** The family with a number of the kernel's; undefined for families that no plugin deals with. */
export function familyOf(number: number): NftFamily | undefined {
  return (Object.keys(NftFamily) as NftFamily[]).find((name) => NftFamily[name] === number);
}

/** A request: struct nfgenmsg and attributes. @param family "all" in lists of objects of every family. */
export function request(
  action: string,
  type: number,
  flags: number,
  family: NftFamily | 'all',
  attributes: readonly Attribute[],
): Request {
  return {
    action,
    type: (NFNL_SUBSYS_NFTABLES << 8) | type,
    flags,
    payload: concat([Uint8Array.of(family === 'all' ? 0 : NftFamily[family], 0, 0, 0), ...attributes]),
  };
}

/**
 * What the kernel says when there is no such table, chain, rule or element, and when it has no nf_tables, or
 * not for that family: EINVAL of a subsystem that it does not have.
 */
export const absent = ['ENOENT', 'EINVAL', 'EOPNOTSUPP', 'EAFNOSUPPORT'] as const;

/**
 * Lists what a request asks for: nothing when there is no such thing, or no nf_tables in the kernel. Any
 * change of the ruleset interrupts the list, however far from what is listed, and what DEL has to remove must
 * not be missed: interrupted readings count together. What is listed may have gone meanwhile.
 * @param identity the attribute that tells apart the objects of a table.
 * @throws NetlinkError
 */
export function dumpIfPresent(socket: NetlinkSocket, dump: Request, identity: number): ReceivedMessage[] {
  try {
    return socket.dump(dump, ({ payload }) => {
      const attributes = new Attributes(payload.subarray(4));
      return [payload[0], ...[NFTA_TABLE, identity].map((type) => hex(attributes.bytes(type)))].join(' ');
    });
  } catch (error) {
    if (isKernelError(error, ...absent)) return [];
    throw error;
  }
}

/** Bytes as text; "" when there are none. */
export function hex(bytes: Uint8Array | undefined): string {
  return bytes ? Buffer.from(bytes).toString('hex') : '';
}

/**
 * The generation of the ruleset, a number that grows with every change that anybody makes.
 * @throws NetlinkError when there is no nf_tables.
 */
export function readGeneration(socket: NetlinkSocket): number {
  const get = request('ask for the generation of nftables', Message.GetGeneration, 0, 'inet', []);
  const [[answer]] = socket.execute(get) as [ReceivedMessage[]];
  return (answer && new Attributes(answer.payload.subarray(4)).be32(NFTA_GEN_ID)) ?? 0;
}

/**
 * Carries out requests all together or not at all.
 * @param generation of the ruleset that they are based on: when it has another by now, nothing is done.
 * @throws NetlinkError for the first that failed; its code is ERESTART when the generation is another one.
 */
export function transaction(socket: NetlinkSocket, requests: readonly Request[], generation?: number): void {
  if (requests.length === 0) return;
  const condition = generation === undefined ? undefined : be32Attr(NFNL_BATCH_GENID, generation);
  socket.transaction(NFNL_SUBSYS_NFTABLES, requests, condition);
}

/** The longest comment that nft(8) accepts, in bytes. */
export const longestComment = 128;

/** As much of a comment as nft(8) accepts, in whole characters. */
export function cutComment(comment: string): string {
  return Buffer.from(comment)
    .subarray(0, longestComment)
    .toString('utf8')
    .replace(/\ufffd$/, '');
}

/**
 * Types of the texts in an object's user data: the comment is type 0 for tables, chains and rules alike, and
 * libnftnl skips the types that it does not know.
 */
export const UserText = { Comment: 0, Owner: 0xc1 } as const;

/** User data with a comment: type, length and text with a final NUL, one after another. */
export function userComment(comment: string, owner?: string): Uint8Array {
  const text = (type: number, value: Uint8Array) =>
    concat([Uint8Array.of(type, value.length + 1), value, Uint8Array.of(0)]);
  return concat([
    text(UserText.Comment, Buffer.from(cutComment(comment))),
    ...(owner ? [text(UserText.Owner, Buffer.from(owner))] : []),
  ]);
}

/** Reads a text of user data, "" when it has none of that kind. */
export function readUserText(data: Uint8Array | undefined, wanted: number): string {
  for (let offset = 0; data && offset + 2 <= data.length; ) {
    const [type, length] = [data[offset]!, data[offset + 1]!];
    if (type === wanted) return Buffer.from(data.subarray(offset + 2, offset + 1 + length)).toString('utf8');
    offset += 2 + length;
  }
  return '';
}
