/** Address families as they are in messages of the kernel. */

import { Address, type Family } from '../ip.ts';
import type { AttributeCodec } from '../netlink/attributes.ts';

/** AF_INET and AF_INET6. */
export const addressFamily = { 4: 2, 6: 10 } as const;

/** @returns undefined for a family other than IPv4 and IPv6. */
export function familyOf(number: number): Family | undefined {
  return number === addressFamily[4] ? 4 : number === addressFamily[6] ? 6 : undefined;
}

/** An attribute with an IP address. */
export const ipAddress: AttributeCodec<Address> = {
  encode: (address) => address.toBytes(),
  decode: (bytes) => Address.fromBytes(bytes),
};
