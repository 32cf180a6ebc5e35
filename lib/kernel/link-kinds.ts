/** Kinds of virtual interfaces, and what is particular to each. Source: linux/if_link.h. */

import { bytesAttr, u8Attr, u16Attr, u32Attr } from '../netlink/message.ts';
import { type Link, type LinkKind, type LinkSettings, linkPayload } from './link.ts';

const VETH_INFO_PEER = 1;

/** A bridge. @param options.vlanFiltering whether ports have VLANs. */
export function bridgeKind(options: { vlanFiltering?: boolean } = {}): LinkKind {
  const IFLA_BR_VLAN_FILTERING = 7;
  return {
    kind: 'bridge',
    ...(options.vlanFiltering && { data: [u8Attr(IFLA_BR_VLAN_FILTERING, 1)] }),
  };
}

/** A pair of interfaces; the settings are those of the other end. */
export function vethKind(peer: LinkSettings): LinkKind {
  return { kind: 'veth', data: [bytesAttr(VETH_INFO_PEER | 0x8000, linkPayload(0, peer))] };
}

/** Modes of macvlan, of linux/if_link.h. */
export const macvlanModes = { private: 1, vepa: 2, bridge: 4, passthru: 8 } as const;
const IFLA_MACVLAN_MODE = 1;

/** An interface with a MAC address of its own on another one. @param queue length for broadcasts; 0 leaves it to the kernel. */
export function macvlanKind(mode: string, queue = 0): LinkKind {
  const IFLA_MACVLAN_BC_QUEUE_LEN = 7;
  return {
    kind: 'macvlan',
    data: [
      u32Attr(IFLA_MACVLAN_MODE, macvlanModes[mode as keyof typeof macvlanModes]),
      ...(queue > 0 ? [u32Attr(IFLA_MACVLAN_BC_QUEUE_LEN, queue)] : []),
    ],
  };
}

/** Mode of a macvlan interface. */
export function macvlanMode(link: Link): string {
  return nameOf(macvlanModes, link.data?.u32(IFLA_MACVLAN_MODE));
}

/** Modes of ipvlan, of linux/if_link.h. */
export const ipvlanModes = { l2: 0, l3: 1, l3s: 2 } as const;
const IFLA_IPVLAN_MODE = 1;

/** An interface that shares another one's MAC address. */
export function ipvlanKind(mode: string): LinkKind {
  return { kind: 'ipvlan', data: [u16Attr(IFLA_IPVLAN_MODE, ipvlanModes[mode as keyof typeof ipvlanModes])] };
}

/** Mode of an ipvlan interface. */
export function ipvlanMode(link: Link): string {
  return nameOf(ipvlanModes, link.data?.u16(IFLA_IPVLAN_MODE));
}

const IFLA_VLAN_ID = 1;

/** An interface in a VLAN of another one. */
export function vlanKind(vid: number): LinkKind {
  return { kind: 'vlan', data: [u16Attr(IFLA_VLAN_ID, vid)] };
}

/** The VLAN of a VLAN interface. */
export function vlanId(link: Link): number | undefined {
  return link.data?.u16(IFLA_VLAN_ID);
}

function nameOf(names: Readonly<Record<string, number>>, value: number | undefined): string {
  return Object.keys(names).find((name) => names[name] === value) ?? String(value);
}

/** A name for the host's end of a pair, as the reference plugins make it: "veth" and eight hexadecimal digits. */
export function randomVethName(): string {
  const random = Math.floor(Math.random() * 2 ** 32);
  return `veth${random.toString(16).padStart(8, '0')}`;
}
