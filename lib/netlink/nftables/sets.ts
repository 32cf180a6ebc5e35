/** Named sets of nf_tables, and their elements. */

import {
  type Attribute,
  Attributes,
  be32Attr,
  bytesAttr,
  concat,
  Flag,
  nestedAttr,
  type Request,
  stringAttr,
} from '../message.ts';
import type { NetlinkSocket } from '../socket.ts';
import {
  dumpIfPresent,
  familyOf,
  Message,
  NFTA_LIST_ELEM,
  type NftTable,
  request,
  userComment,
} from './wire.ts';

const SetAttribute = { Table: 1, Name: 2, Flags: 3, KeyType: 4, KeyLength: 5, Id: 10, Userdata: 13 } as const;
const ElementList = { Table: 1, Set: 2, Elements: 3, SetId: 4 } as const;
const Element = { Key: 1, Userdata: 6 } as const;
const NFTA_DATA_VALUE = 1;

/** The types of keys as nft(8) calls them, and their lengths. The kernel knows only the length. */
const keyTypes = {
  ipv4_addr: { type: 7, length: 4 },
  ipv6_addr: { type: 8, length: 16 },
  ifname: { type: 41, length: 16 },
} as const;
export type NftKeyType = keyof typeof keyTypes;

/** A set by its table and name. */
export interface NftSet {
  readonly table: NftTable;
  readonly name: string;
}

/** Creates a set unless it exists. @param id tells it from others that the same transaction creates. */
export function addSet({ table, name }: NftSet, keyType: NftKeyType, id: number): Request {
  const { type, length } = keyTypes[keyType];
  return request(`create nftables set "${table.name} ${name}"`, Message.NewSet, Flag.Create, table.family, [
    stringAttr(SetAttribute.Table, table.name),
    stringAttr(SetAttribute.Name, name),
    be32Attr(SetAttribute.Flags, 0),
    be32Attr(SetAttribute.KeyType, type),
    be32Attr(SetAttribute.KeyLength, length),
    be32Attr(SetAttribute.Id, id),
    bytesAttr(SetAttribute.Userdata, keyByteOrder(keyType)),
  ]);
}

/** Adds an element unless the set has it. @param comment that nft(8) shows. */
export function addElement(set: NftSet, key: Uint8Array, comment?: string): Request {
  return elementRequest('add an element to', Message.NewSetElement, Flag.Create, set, [
    keyAttr(key),
    ...(comment ? [bytesAttr(Element.Userdata, userComment(comment))] : []),
  ]);
}

/** Removes an element, which the set must have. */
export function deleteElement(set: NftSet, key: Uint8Array): Request {
  return elementRequest('remove an element from', Message.DelSetElement, 0, set, [keyAttr(key)]);
}

/** Asks for an element, which the set must have. */
export function getElement(set: NftSet, key: Uint8Array): Request {
  return elementRequest('look up an element of', Message.GetSetElement, 0, set, [keyAttr(key)]);
}

/** The sets of that name in every table; none when the kernel has no nf_tables. @throws NetlinkError */
export function findSets(socket: NetlinkSocket, name: string): NftSet[] {
  const dump = request('list nftables sets', Message.GetSet, 0, 'all', []);
  return dumpIfPresent(socket, dump, SetAttribute.Name).flatMap(({ payload }) => {
    const family = familyOf(payload[0]!);
    const attributes = new Attributes(payload.subarray(4));
    if (!family || attributes.string(SetAttribute.Name) !== name) return [];
    return [{ table: { family, name: attributes.string(SetAttribute.Table) ?? '' }, name }];
  });
}

function keyAttr(key: Uint8Array): Attribute {
  return nestedAttr(Element.Key, [bytesAttr(NFTA_DATA_VALUE, key)]);
}

function elementRequest(
  action: string,
  type: number,
  flags: number,
  { table, name }: NftSet,
  element: readonly Attribute[],
): Request {
  return request(`${action} nftables set "${table.name} ${name}"`, type, flags, table.family, [
    stringAttr(ElementList.Table, table.name),
    stringAttr(ElementList.Set, name),
    nestedAttr(ElementList.Elements, [nestedAttr(NFTA_LIST_ELEM, element)]),
  ]);
}

/** The byte order of keys, as nft(8) records it in a set for itself. */
function keyByteOrder(keyType: NftKeyType): Uint8Array {
  const NFTNL_UDATA_SET_KEYBYTEORDER = 0;
  const [hostEndian, bigEndian] = [1, 2];
  const order = keyType === 'ifname' ? hostEndian : bigEndian;
  return concat([Uint8Array.of(NFTNL_UDATA_SET_KEYBYTEORDER, 4), Uint8Array.of(order, 0, 0, 0)]);
}
