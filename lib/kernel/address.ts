/** IP addresses of interfaces. Source: rtnetlink(7), linux/if_addr.h. */

import { type Family, Prefix } from '../ip.ts';
import { attributes, layout } from '../netlink/attributes.ts';
import { Flag, type Request } from '../netlink/message.ts';
import { struct, u8, u32 } from '../netlink/struct.ts';
import { addressFamily, familyOf, ipAddress } from './family.ts';
import type { RouteSocket } from './route-socket.ts';

const RTM_NEWADDR = 20;
const RTM_DELADDR = 21;
const RTM_GETADDR = 22;

const addressLayout = layout(
  struct({ family: u8, length: u8, flags: u8, scope: u8, link: u32 }),
  attributes({
    address: [1, ipAddress, 'address'],
    local: [2, ipAddress, 'address'],
    broadcast: [4, ipAddress, 'broadcast address'],
    flags: [8, u32],
  }),
);

/** Flags of linux/if_addr.h. */
export const AddressFlag = {
  NoDad: 0x02,
  DadFailed: 0x08,
  Tentative: 0x40,
} as const;

/** An address of an interface. */
export interface InterfaceAddress {
  /** Index of the interface. */
  link: number;
  prefix: Prefix;
  flags: number;
  /** RT_SCOPE_*. */
  scope: number;
}

/** How an address is added. */
export interface AddAddressOptions {
  /** Use an IPv6 address at once, without asking the neighbours whether somebody has it already. */
  noDad?: boolean;
  /** Name of the interface, for messages. */
  label?: string;
}

/** Adds an address to an interface. */
export function addAddress(link: number, prefix: Prefix, options: AddAddressOptions = {}): Request {
  const { noDad = false, label = `${link}` } = options;
  return {
    action: `add address ${prefix} to interface "${label}"`,
    type: RTM_NEWADDR,
    flags: Flag.Create | Flag.Exclusive,
    payload: encodeAddress(link, prefix, {
      // As with the reference plugins, and with "broadcast +" of ip-address(8), IPv4 subnets of more than two
      // addresses get their broadcast address.
      ...(prefix.family === 4 && prefix.length < 31 && { broadcast: prefix.last }),
      ...(prefix.family === 6 && noDad && { flags: AddressFlag.NoDad }),
    }),
    names: addressLayout,
  };
}

/** Removes an address from an interface. */
export function deleteAddress(link: number, prefix: Prefix, label = `${link}`): Request {
  return {
    action: `remove address ${prefix} from interface "${label}"`,
    type: RTM_DELADDR,
    flags: 0,
    payload: encodeAddress(link, prefix),
  };
}

/** Addresses of one interface, or of every interface of the namespace. */
export function listAddresses(socket: RouteSocket, link?: number, family?: Family): InterfaceAddress[] {
  const payload = addressLayout.header.encode({
    family: family ? addressFamily[family] : 0,
    link: link ?? 0,
  });
  return (
    socket
      .dump({ action: 'list addresses', type: RTM_GETADDR, flags: 0, payload })
      .flatMap((message) => readAddress(message.payload) ?? [])
      // A kernel without IPv6 answers a request for IPv6 addresses with all the addresses it has.
      .filter(({ prefix }) => family === undefined || prefix.family === family)
      .filter((address) => link === undefined || address.link === link)
  );
}

function readAddress(payload: Uint8Array): InterfaceAddress | undefined {
  const { family, length, scope, ...header } = addressLayout.header.decode(payload);
  if (!familyOf(family)) return undefined;
  // On a point-to-point interface `address` is the peer's, and `local` ours.
  const { address, local = address, flags = header.flags } = addressLayout.decode(payload);
  return local && { link: header.link, prefix: new Prefix(local, length), flags, scope };
}

function encodeAddress(
  link: number,
  { family, address, length }: Prefix,
  more: { broadcast?: Prefix['address']; flags?: number } = {},
): Uint8Array {
  return addressLayout.encode(
    { family: addressFamily[family], length, link },
    { local: address, address, ...more },
  );
}
