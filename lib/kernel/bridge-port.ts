/** How a bridge treats its ports, and the VLANs that they are in. Sources: bridge(8), linux/if_bridge.h. */

import {
  type Attribute,
  Attributes,
  bytesAttr,
  listAttributes,
  nestedAttr,
  numberBytes,
  type Request,
  u8Attr,
  u16Attr,
  u32Attr,
  viewOf,
} from '../netlink/message.ts';
import {
  AF_BRIDGE,
  IFLA_AF_SPEC,
  type Link,
  linkPayload,
  RTM_DELLINK,
  RTM_GETLINK,
  RTM_SETLINK,
} from './link.ts';
import type { RouteSocket } from './route-socket.ts';

const IFLA_PROTINFO = 12;
const IFLA_EXT_MASK = 29;
const IFLA_BRPORT_MODE = 4;
const IFLA_BRPORT_ISOLATED = 33;

/** How a bridge treats one of its ports. */
export interface BridgePortSettings {
  /** Frames may leave by the port they came in. */
  hairpin?: boolean;
  /** No frames to or from other isolated ports. */
  isolated?: boolean;
}

/** Changes a bridge's port. */
export function setBridgePort(index: number, settings: BridgePortSettings, label = `${index}`): Request {
  const attributes: Attribute[] = [];
  if (settings.hairpin !== undefined) attributes.push(u8Attr(IFLA_BRPORT_MODE, Number(settings.hairpin)));
  if (settings.isolated !== undefined)
    attributes.push(u8Attr(IFLA_BRPORT_ISOLATED, Number(settings.isolated)));
  return {
    action: `set hairpin mode or isolation of bridge port "${label}"`,
    type: RTM_SETLINK,
    flags: 0,
    payload: linkPayload(index, {}, [nestedAttr(IFLA_PROTINFO, attributes)], AF_BRIDGE),
  };
}

/** Reads how a bridge treats one of its ports. @returns undefined when the interface is no bridge port. */
export function bridgePortSettings(link: Link): Required<BridgePortSettings> | undefined {
  const data = link.portData;
  if (!data?.has(IFLA_BRPORT_MODE)) return undefined;
  return { hairpin: data.u8(IFLA_BRPORT_MODE) === 1, isolated: data.u8(IFLA_BRPORT_ISOLATED) === 1 };
}

/** VLANs of a bridge port. */
export interface BridgeVlan {
  /** 1 to 4094. */
  vid: number;
  /** Last VLAN of a range that begins with `vid`. */
  end?: number;
  /** Untagged frames that come in belong to it. */
  pvid?: boolean;
  /** Frames of it leave without a tag. */
  untagged?: boolean;
}

const BRIDGE_FLAGS_SELF = 2;
const IFLA_BRIDGE_FLAGS = 0;
const IFLA_BRIDGE_VLAN_INFO = 2;
const VlanFlag = { Pvid: 2, Untagged: 4, RangeBegin: 8, RangeEnd: 16 } as const;

/** Adds a VLAN, or a range, to a bridge port. @param self on the bridge itself rather than one of its ports. */
export function addBridgeVlan(
  index: number,
  vlan: BridgeVlan,
  options: { self?: boolean; label?: string } = {},
): Request {
  return bridgeVlanRequest('add', RTM_SETLINK, index, vlan, options);
}

/** Removes a VLAN, or a range, from a bridge port. */
export function deleteBridgeVlan(
  index: number,
  vlan: BridgeVlan,
  options: { self?: boolean; label?: string } = {},
): Request {
  return bridgeVlanRequest('remove', RTM_DELLINK, index, vlan, options);
}

function bridgeVlanRequest(
  verb: string,
  type: number,
  index: number,
  vlan: BridgeVlan,
  { self = false, label = `${index}` }: { self?: boolean; label?: string },
): Request {
  const info = (vid: number, extra: number) =>
    bytesAttr(
      IFLA_BRIDGE_VLAN_INFO,
      numberBytes(4, (view) => {
        view.setUint16(
          0,
          (vlan.pvid ? VlanFlag.Pvid : 0) | (vlan.untagged ? VlanFlag.Untagged : 0) | extra,
          true,
        );
        view.setUint16(2, vid, true);
      }),
    );
  const infos =
    vlan.end === undefined || vlan.end === vlan.vid
      ? [info(vlan.vid, 0)]
      : [info(vlan.vid, VlanFlag.RangeBegin), info(vlan.end, VlanFlag.RangeEnd)];
  const spec = nestedAttr(IFLA_AF_SPEC, [
    ...(self ? [u16Attr(IFLA_BRIDGE_FLAGS, BRIDGE_FLAGS_SELF)] : []),
    ...infos,
  ]);
  return {
    action: `${verb} VLAN ${vlan.vid}${vlan.end ? `-${vlan.end}` : ''} ${verb === 'add' ? 'to' : 'from'} bridge port "${label}"`,
    type,
    flags: 0,
    payload: linkPayload(index, {}, [spec], AF_BRIDGE),
  };
}

/** VLANs of a bridge port, one entry a VLAN. */
export function listBridgeVlans(socket: RouteSocket, index: number): BridgeVlan[] {
  const RTEXT_FILTER_BRVLAN = 2;
  const messages = socket.dump({
    action: 'list VLANs of bridge ports',
    type: RTM_GETLINK,
    flags: 0,
    payload: linkPayload(0, {}, [u32Attr(IFLA_EXT_MASK, RTEXT_FILTER_BRVLAN)], AF_BRIDGE),
  });
  const vlans: BridgeVlan[] = [];
  for (const { payload } of messages) {
    if (viewOf(payload).getInt32(4, true) !== index) continue;
    const spec = new Attributes(payload.subarray(16)).bytes(IFLA_AF_SPEC);
    if (!spec) continue;
    for (const [type, value] of listAttributes(spec)) {
      if (type !== IFLA_BRIDGE_VLAN_INFO || value.length < 4) continue;
      const view = viewOf(value);
      const flags = view.getUint16(0, true);
      vlans.push({
        vid: view.getUint16(2, true),
        pvid: (flags & VlanFlag.Pvid) !== 0,
        untagged: (flags & VlanFlag.Untagged) !== 0,
      });
    }
  }
  return vlans;
}
