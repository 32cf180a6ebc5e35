/** Netlink messages from which an attribute is missing, or its value. */

import { bytesAttr, concat, listAttributes, type Request } from '../../lib/netlink/message.ts';

/** Marks an attribute that holds others (NLA_F_NESTED), in the upper byte of its type. */
const nestedMark = 0x80;

/**
 * Size in bytes of what precedes the attributes, by rtnetlink type divided by four: the four types of a
 * group, such as to make, to remove and to list, have the same header. Source: linux/rtnetlink.h.
 */
const routeHeaders: Readonly<Record<number, number>> = {
  4: 16,
  5: 8,
  6: 12,
  7: 12,
  8: 12,
  9: 20,
  10: 20,
  11: 20,
};

/** struct nfgenmsg. */
const nfnetlinkHeader = 4;

/** A message in every variant that lacks one attribute, or its value, however deep it is nested. */
export function incompleteOf(request: Request): Request[] {
  const { type, payload } = request;
  const size = type > 0xff ? nfnetlinkHeader : routeHeaders[type >> 2]!;
  const header = payload.subarray(0, size);
  return variantsOf(payload.subarray(size)).map((list) => ({ ...request, payload: concat([header, list]) }));
}

function variantsOf(list: Uint8Array): Uint8Array[] {
  const attributes = listAttributes(list).map(([type, value]) => {
    // The byte before the value has the mark.
    const isNested = (list[value.byteOffset - list.byteOffset - 1]! & nestedMark) !== 0;
    const holding = (other: Uint8Array) => bytesAttr(isNested ? type | (nestedMark << 8) : type, other);
    const others = [...(isNested ? variantsOf(value) : []), new Uint8Array()].map(holding);
    return { whole: holding(value), others };
  });
  const whole = attributes.map((attribute) => attribute.whole);
  return attributes.flatMap(({ others }, i) => [
    concat(whole.toSpliced(i, 1)),
    ...others.map((other) => concat(whole.with(i, other))),
  ]);
}
