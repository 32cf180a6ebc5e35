/** VXLAN interfaces: Ethernet within UDP between hosts. Source: linux/if_link.h, ip-link(8). */

import type { Address } from '../ip.ts';
import { attributes, raw } from '../netlink/attributes.ts';
import { be16, u8, u32 } from '../netlink/struct.ts';
import { ipAddress } from './family.ts';
import type { Link, LinkKind } from './link.ts';

const vxlanData = attributes({
  vni: [1, u32, 'VNI'],
  parent: [3, u32],
  local: [4, ipAddress, 'local address'],
  learning: [7, u8],
  port: [15, be16, 'port'],
  local6: [17, ipAddress, 'local address'],
  gbp: [23, raw],
});

/** Settings of a VXLAN interface. */
export interface Vxlan {
  /** Identifies the network between the hosts: 1 to 16,777,215. */
  readonly vni: number;
  /** Index of the interface that packets leave by. */
  readonly parent: number;
  /** Address that packets leave with. */
  readonly local: Address;
  /** UDP port of all hosts. */
  readonly port: number;
  /** Whether it learns which host a MAC address is behind. */
  readonly learning: boolean;
  /** Whether packets carry a mark of Group Policy (draft-smith-vxlan-group-policy). */
  readonly gbp: boolean;
}

/** A VXLAN interface. */
export function vxlanKind({ vni, parent, local, port, learning, gbp }: Vxlan): LinkKind {
  const data = vxlanData.encode({
    ...{ vni, parent, learning: Number(learning), port },
    ...(local.family === 4 ? { local } : { local6: local }),
    ...(gbp && { gbp: new Uint8Array() }),
  });
  return { kind: 'vxlan', data, names: vxlanData };
}

/** Settings of a VXLAN interface. @returns undefined for one of another kind, or without local address. */
export function vxlanSettings({ kind, data }: Link): Vxlan | undefined {
  if (kind !== 'vxlan' || !data) return undefined;
  const { vni = 0, parent = 0, local, local6 = local, port = 0, learning, gbp } = vxlanData.decode(data);
  return local6 && { vni, parent, local: local6, port, learning: learning === 1, gbp: gbp !== undefined };
}
