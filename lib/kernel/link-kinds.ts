/** Kinds of virtual interfaces, and the settings that each has of its own. Source: linux/if_link.h. */

import { attributes, container } from '../netlink/attributes.ts';
import { u8, u16, u32 } from '../netlink/struct.ts';
import { encodeLink, type Link, type LinkKind, type LinkSettings, linkLayout } from './link.ts';

const bridgeData = attributes({ vlanFiltering: [7, u8] });
const vethData = attributes({ peer: [1, container(linkLayout)] });
const macvlanData = attributes({ mode: [1, u32, 'mode'], queueLength: [7, u32, 'broadcast queue length'] });
const ipvlanData = attributes({ mode: [1, u16, 'mode'] });
const vlanData = attributes({ id: [1, u16, 'VLAN ID'] });
const vrfData = attributes({ table: [1, u32, 'table'] });

/** A bridge. @param options.vlanFiltering whether ports have VLANs. */
export function bridgeKind({ vlanFiltering = false } = {}): LinkKind {
  return { kind: 'bridge', ...(vlanFiltering && { data: bridgeData.encode({ vlanFiltering: 1 }) }) };
}

/** A veth pair; the settings are those of the peer. */
export function vethKind(peer: LinkSettings): LinkKind {
  return { kind: 'veth', data: vethData.encode({ peer: encodeLink(0, peer) }), names: vethData };
}

/**
 * A name for the host's end of a veth pair, as the reference plugins choose it: "veth" and eight hexadecimal
 * digits.
 */
export function randomVethName(): string {
  const random = Math.floor(Math.random() * 2 ** 32);
  return `veth${random.toString(16).padStart(8, '0')}`;
}

/** Modes of macvlan. */
export const macvlanModes = { private: 1, vepa: 2, bridge: 4, passthru: 8 } as const;

/**
 * An interface with a MAC address of its own on a parent.
 * @param queueLength for broadcasts; 0 leaves it to the kernel.
 */
export function macvlanKind(mode: string, queueLength = 0): LinkKind {
  const data = macvlanData.encode({
    mode: macvlanModes[mode as keyof typeof macvlanModes],
    queueLength: queueLength || undefined,
  });
  return { kind: 'macvlan', data, names: macvlanData };
}

/** Mode of a macvlan interface. */
export function macvlanMode({ data }: Link): string {
  return nameOf(macvlanModes, data && macvlanData.decode(data).mode);
}

/** Modes of ipvlan. */
export const ipvlanModes = { l2: 0, l3: 1, l3s: 2 } as const;

/** An interface that shares its parent's MAC address. */
export function ipvlanKind(mode: string): LinkKind {
  const data = ipvlanData.encode({ mode: ipvlanModes[mode as keyof typeof ipvlanModes] });
  return { kind: 'ipvlan', data, names: ipvlanData };
}

/** Mode of an ipvlan interface. */
export function ipvlanMode({ data }: Link): string {
  return nameOf(ipvlanModes, data && ipvlanData.decode(data).mode);
}

/** An interface in a VLAN of its parent. */
export function vlanKind(id: number): LinkKind {
  return { kind: 'vlan', data: vlanData.encode({ id }), names: vlanData };
}

/** The VLAN of a VLAN interface. */
export function vlanId({ data }: Link): number | undefined {
  return data && vlanData.decode(data).id;
}

/** An interface whose members are routed by a table. */
export function vrfKind(table: number): LinkKind {
  return { kind: 'vrf', data: vrfData.encode({ table }), names: vrfData };
}

/** The table that a VRF routes by. @returns undefined when the interface is not a VRF. */
export function vrfTable({ kind, data }: Link): number | undefined {
  return kind === 'vrf' && data ? vrfData.decode(data).table : undefined;
}

function nameOf(names: Readonly<Record<string, number>>, value: number | undefined): string {
  return Object.keys(names).find((name) => names[name] === value) ?? String(value);
}
