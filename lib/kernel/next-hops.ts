/** The next hops of a multipath route. Sources: rtnetlink(7), linux/rtnetlink.h. */

import type { Address } from '../ip.ts';
import { attributes, layout } from '../netlink/attributes.ts';
import { i32, struct, u8, u16 } from '../netlink/struct.ts';
import { ipAddress } from './family.ts';

export const RTA_GATEWAY = 5;
/** Marks a gateway that counts as reachable over the interface, whatever addresses that has. */
export const RTNH_F_ONLINK = 4;

const rtnexthop = struct({ length: u16, flags: u8, weight: u8, link: i32 });
const hopLayout = layout(rtnexthop, attributes({ gw: [RTA_GATEWAY, ipAddress] }));

/** One of the ways that packets take by turns. */
export interface NextHop {
  /** Index of the interface. */
  readonly link: number;
  readonly gw: Address | undefined;
  readonly weight: number;
  /** What the kernel reported of it, with what the fields above leave out, such as an encapsulation. */
  readonly bytes: Uint8Array;
}

/** @param data content of RTA_MULTIPATH. @throws RangeError when it is damaged. */
export function readNextHops(data: Uint8Array): NextHop[] {
  return splitHops(data).map((bytes) => {
    const { link, weight } = rtnexthop.decode(bytes);
    return { link, gw: hopLayout.decode(bytes).gw, weight: weight + 1, bytes };
  });
}

/** RTA_MULTIPATH without the state of the hops, which the kernel does not accept in requests. */
export function withoutHopState(data: Uint8Array): Uint8Array {
  const copy = data.slice();
  for (const hop of splitHops(copy)) {
    const header = rtnexthop.decode(hop);
    hop.set(rtnexthop.encode({ ...header, flags: header.flags & RTNH_F_ONLINK }));
  }
  return copy;
}

/** The next hops of a multipath route, one after another: each is a structure followed by attributes. */
function splitHops(data: Uint8Array): Uint8Array[] {
  const hops: Uint8Array[] = [];
  for (let offset = 0; offset + rtnexthop.size <= data.length; ) {
    const { length } = rtnexthop.decode(data.subarray(offset));
    if (length < rtnexthop.size || offset + length > data.length)
      throw new RangeError(
        `A next hop of ${length} bytes does not fit the ${data.length - offset} that are left`,
      );
    hops.push(data.subarray(offset, offset + length));
    offset += (length + 3) & ~3;
  }
  return hops;
}
