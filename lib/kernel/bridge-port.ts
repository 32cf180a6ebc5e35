/** How a bridge treats its ports, and the VLANs that they are in. Sources: bridge(8), linux/if_bridge.h. */

import { attributes, repeated } from '../netlink/attributes.ts';
import type { Request } from '../netlink/message.ts';
import { struct, u8, u16 } from '../netlink/struct.ts';
import { NetlinkGroup, waitForEvent } from './events.ts';
import { type Link, LinkMessage, linkLayout, requireLink } from './link.ts';
import type { RouteSocket } from './route-socket.ts';

const AF_BRIDGE = 7;
const RTEXT_FILTER_BRVLAN = 2;
const VlanFlag = { Pvid: 2, Untagged: 4, RangeBegin: 8, RangeEnd: 16 } as const;

const portAttributes = attributes({ hairpin: [4, u8, 'hairpin mode'], isolated: [33, u8, 'isolation'] });
const vlanInfo = struct({ flags: u16, vid: u16 });
const bridgeSettings = attributes({ vlans: [2, repeated(vlanInfo), 'VLAN'] });

/**
 * Waits until a port passes frames.
 * @param socket of the namespace that the thread is in.
 * @returns false when it does not within ten seconds: the kernel may be busy with other namespaces.
 */
export function waitUntilUp(socket: RouteSocket, index: number): Promise<boolean> {
  return waitForEvent(NetlinkGroup.Link, 10_000, () => requireLink(socket, index).operState === 'up');
}

/** How a bridge treats one of its ports. */
export interface BridgePortSettings {
  /** Frames may leave by the port they came in by. */
  hairpin?: boolean;
  /** No frames to or from other isolated ports. */
  isolated?: boolean;
}

/** Changes a bridge's port. */
export function setBridgePort(
  index: number,
  { hairpin, isolated }: BridgePortSettings,
  label = `${index}`,
): Request {
  const port = portAttributes.encode({
    hairpin: hairpin === undefined ? undefined : Number(hairpin),
    isolated: isolated === undefined ? undefined : Number(isolated),
  });
  return {
    action: `set hairpin mode or isolation of bridge port "${label}"`,
    type: LinkMessage.Set,
    flags: 0,
    payload: linkLayout.encode({ family: AF_BRIDGE, index }, { port }),
    names: linkLayout,
    innerNames: portAttributes,
  };
}

/** Reads how a bridge treats one of its ports. @returns undefined when the interface is not a bridge port. */
export function bridgePortSettings({ portData }: Link): Required<BridgePortSettings> | undefined {
  const { hairpin, isolated } = portData ? portAttributes.decode(portData) : {};
  return hairpin === undefined ? undefined : { hairpin: hairpin === 1, isolated: isolated === 1 };
}

/** VLANs of a bridge port. */
export interface BridgeVlan {
  /** 1 to 4094. */
  vid: number;
  /** Last VLAN of a range that begins with `vid`. */
  end?: number;
  /** Untagged frames that come in belong to it. */
  pvid?: boolean;
  /** Its frames leave without a tag. */
  untagged?: boolean;
}

/** Adds a VLAN, or a range, to a bridge port. */
export function addBridgeVlan(index: number, vlan: BridgeVlan, label = `${index}`): Request {
  return vlanRequest(LinkMessage.Set, index, vlan, `add ${nameOf(vlan)} to bridge port "${label}"`);
}

/** Removes a VLAN, or a range, from a bridge port. */
export function deleteBridgeVlan(index: number, vlan: BridgeVlan, label = `${index}`): Request {
  return vlanRequest(LinkMessage.Delete, index, vlan, `remove ${nameOf(vlan)} from bridge port "${label}"`);
}

/** VLANs of a bridge port, one entry per VLAN. */
export function listBridgeVlans(socket: RouteSocket, index: number): BridgeVlan[] {
  const messages = socket.dump({
    action: 'list VLANs of bridge ports',
    type: LinkMessage.Get,
    flags: 0,
    payload: linkLayout.encode({ family: AF_BRIDGE }, { extended: RTEXT_FILTER_BRVLAN }),
  });
  return messages.flatMap(({ payload }) => {
    if (linkLayout.header.decode(payload).index !== index) return [];
    const { familySettings } = linkLayout.decode(payload);
    const { vlans = [] } = familySettings ? bridgeSettings.decode(familySettings) : {};
    return vlans.map(({ vid, flags }) => ({
      vid,
      pvid: (flags & VlanFlag.Pvid) !== 0,
      untagged: (flags & VlanFlag.Untagged) !== 0,
    }));
  });
}

function vlanRequest(type: number, index: number, vlan: BridgeVlan, action: string): Request {
  const { vid, end = vid, pvid = false, untagged = false } = vlan;
  const flags = (pvid ? VlanFlag.Pvid : 0) | (untagged ? VlanFlag.Untagged : 0);
  const vlans =
    end === vid
      ? [{ vid, flags }]
      : [
          { vid, flags: flags | VlanFlag.RangeBegin },
          { vid: end, flags: flags | VlanFlag.RangeEnd },
        ];
  return {
    action,
    type,
    flags: 0,
    payload: linkLayout.encode(
      { family: AF_BRIDGE, index },
      { familySettings: bridgeSettings.encode({ vlans }) },
    ),
    names: linkLayout,
    innerNames: bridgeSettings,
  };
}

function nameOf({ vid, end = vid }: BridgeVlan): string {
  return end === vid ? `VLAN ${vid}` : `VLANs ${vid}-${end}`;
}
