/** nftables in the firewall's words: matches on addresses and ports, and a socket for transactions. */

import type { Address, Family, Prefix } from '../ip.ts';
import { addressFamily } from '../kernel/family.ts';
import { isKernelError } from '../netlink/libc.ts';
import type { Attribute, Request } from '../netlink/message.ts';
import { dnat, getGeneration, meta, type NftTable, payload, transaction } from '../netlink/nftables.ts';
import { NetlinkProtocol, NetlinkSocket } from '../netlink/socket.ts';

/** Protocol numbers of netinet/in.h. */
export const protocolNumber: Record<string, number> = { tcp: 6, udp: 17, sctp: 132 };

/** Priorities of linux/netfilter_ipv4.h by their names in nft(8). */
export const Priority = { dstnat: -100, srcnat: 100 } as const;
/** Hooks of linux/netfilter.h. */
export const Hook = { prerouting: 0, output: 3, postrouting: 4 } as const;

const addressOffset = { 4: { saddr: 12, daddr: 16 }, 6: { saddr: 8, daddr: 24 } } as const;

/** Opens a socket for nftables in the namespace that the thread is in. */
export function openNftables(): NetlinkSocket {
  return new NetlinkSocket(NetlinkProtocol.Netfilter);
}

/** Like {@link openNftables} for one use; an error that the kernel has no nftables says so. */
export function withNftables<T>(work: (socket: NetlinkSocket) => T): T {
  using socket = openNftables();
  try {
    return work(socket);
  } catch (error) {
    if (isKernelError(error, 'EOPNOTSUPP', 'EINVAL') && /begin a transaction|generation/.test(error.message))
      throw new Error(
        'The kernel has no nftables. Load the module "nf_tables", or set the backend to "iptables"',
        {
          cause: error,
        },
      );
    throw error;
  }
}

/** @throws Error when the kernel has no nftables. */
export function requireNftables(): void {
  withNftables((socket) => socket.execute(getGeneration()));
}

/** The table of nf_tables where iptables keeps one of its own. */
export function nftTableOf(family: Family, name: string): NftTable {
  return { family: family === 4 ? 'ip' : 'ip6', name };
}

/** How often a change is composed anew when others were faster. */
const changeTries = 10;

/**
 * Carries out a change that depends on what is there.
 * @param compose looks, and says what to do. It is asked `again` when something that it names has gone meanwhile, as two DELs at
 *   once may have it.
 */
export function changeNftables(compose: (socket: NetlinkSocket, again: boolean) => readonly Request[]): void {
  withNftables((socket) => {
    for (let tries = 1; ; tries++) {
      try {
        return transaction(socket, compose(socket, tries > 1));
      } catch (error) {
        if (tries === changeTries || !isKernelError(error, 'ENOENT', 'EBUSY')) throw error;
      }
    }
  });
}

/** The packet is of this family: needed in tables of both. */
export function isFamily(family: Family): Attribute[] {
  return meta('nfproto', Uint8Array.of(addressFamily[family]));
}

/** The packet's source or destination is, or is not, in a prefix. */
export function addressMatch(field: 'saddr' | 'daddr', op: '==' | '!=', prefix: Prefix): Attribute[] {
  const full = prefix.length === (prefix.family === 4 ? 32 : 128);
  return payload(
    'network',
    addressOffset[prefix.family][field],
    op,
    prefix.first.toBytes(),
    full ? undefined : prefix.mask.toBytes(),
  );
}

/** The packet goes to a port. */
export function portMatch(protocol: string, port: number): Attribute[] {
  return [
    ...meta('l4proto', Uint8Array.of(protocolNumber[protocol]!)),
    ...payload('transport', 2, '==', portBytes(port)),
  ];
}

/** The connection goes to an address and port instead. */
export function dnatTo(address: Address, port: number): Attribute[] {
  return dnat(addressFamily[address.family], address.toBytes(), portBytes(port));
}

function portBytes(port: number): Uint8Array {
  return Uint8Array.of(port >> 8, port & 0xff);
}
