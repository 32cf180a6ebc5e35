/** VLANs of a bridge's ports. Sources: bridge(8), linux/if_bridge.h. */

import { isKernelError } from '../netlink/libc.ts';
import type { Request } from '../netlink/message.ts';
import { addBridgeVlan, type BridgeVlan, deleteBridgeVlan, listBridgeVlans } from './bridge-port.ts';
import { createLink, deleteLink, getLink, type Link, requireLink, setLink } from './link.ts';
import { randomVethName, vethKind } from './link-kinds.ts';
import type { RouteSocket } from './route-socket.ts';
import { preferSysctl } from './sysctl.ts';

/** The VLANs of a port. */
export interface VlanPort {
  /** VLAN of untagged frames; 0 for none. */
  vlan: number;
  /** Tagged VLANs, as ranges. */
  trunk: { first: number; last: number }[];
  /** Keep VLAN 1, which the bridge gives every port. */
  preserveDefaultVlan: boolean;
}

/**
 * Reads the VLANs of a trunk. An entry may have one VLAN, a range, or both.
 * @throws Error when an entry has neither.
 */
export function resolveTrunk(
  entries: readonly { id?: number; minID?: number; maxID?: number }[],
): VlanPort['trunk'] {
  return entries.flatMap(({ id, minID, maxID }, i) => {
    const where = `"vlanTrunk[${i}]"`;
    if ((minID === undefined) !== (maxID === undefined))
      throw new Error(
        `${where} has only one of "minID" and "maxID". Set both for a range, or "id" for one VLAN`,
      );
    if (minID !== undefined && maxID !== undefined && minID > maxID)
      throw new Error(`${where} is the range ${minID} to ${maxID}. Put the lower one into "minID"`);
    if (id === undefined && minID === undefined)
      throw new Error(`${where} names no VLAN. Set "id", or "minID" and "maxID"`);
    return [
      ...(minID !== undefined && maxID !== undefined ? [{ first: minID, last: maxID }] : []),
      ...(id === undefined ? [] : [{ first: id, last: id }]),
    ];
  });
}

/** Gives a port its VLANs. */
export function assignVlans(socket: RouteSocket, port: Link, wanted: VlanPort): void {
  const { index, name } = port;
  const present = listBridgeVlans(socket, index);
  const [dropped, kept] = wanted.preserveDefaultVlan
    ? [[], present.filter(({ pvid, untagged }) => pvid || untagged)]
    : [present, []];
  // Tagged VLANs first: one that is added again has the flags of the last time.
  const added = [...taggedOf(wanted), ...kept, ...untaggedOf(wanted)];
  socket.execute(
    ...dropped.map(({ vid }) => deleteBridgeVlan(index, { vid }, name)),
    ...added.map((vlan) => addBridgeVlan(index, vlan, name)),
  );
}

/** @throws Error when the port lacks one of its VLANs. */
export function checkVlans(socket: RouteSocket, port: Link, wanted: VlanPort): void {
  const present = listBridgeVlans(socket, port.index);
  for (const { vid, end = vid, pvid = false } of [...taggedOf(wanted), ...untaggedOf(wanted)])
    for (let id = vid; id <= end; id++)
      if (!present.some((vlan) => vlan.vid === id && (!pvid || vlan.pvid)))
        throw new Error(
          `Port "${port.name}" is not in VLAN ${id}${pvid ? ' with its untagged frames' : ''}. Run "cni repair"`,
        );
}

/**
 * The host's own interface in a VLAN of the bridge, "<bridge>.<vlan>", as the reference plugin creates it: a
 * veth pair whose peer is a port of the bridge in that VLAN.
 */
export function ensureVlanInterface(
  socket: RouteSocket,
  bridge: Link,
  { vlan, preserveDefaultVlan }: VlanPort,
  warn: (message: string) => void,
): Link {
  const name = `${bridge.name}.${vlan}`;
  const present = getLink(socket, name);
  if (present) return present;
  const portName = randomVethName();
  const requests: Request[] = [
    createLink(vethKind({ name: portName, mtu: bridge.mtu }), { name, mtu: bridge.mtu }),
  ];
  try {
    socket.execute(...requests);
  } catch (error) {
    if (isKernelError(error, 'EEXIST') && getLink(socket, name)) return requireLink(socket, name);
    throw error;
  }
  try {
    for (const end of [name, portName]) preferSysctl(['ipv6', 'conf', end, 'accept_ra'], '0', warn);
    const link = requireLink(socket, name);
    const port = requireLink(socket, portName);
    joinVlan(socket, bridge, port, { vlan, preserveDefaultVlan });
    socket.execute(setLink(link.index, { up: true }, name));
    return requireLink(socket, name);
  } catch (error) {
    // Half of it would pass for the whole at the next ADD.
    socket.attempt(deleteLink(0, name));
    throw error;
  }
}

/** Makes the peer of {@link ensureVlanInterface} a port of the bridge in its VLAN. */
export function joinVlan(
  socket: RouteSocket,
  bridge: Link,
  port: Link,
  { vlan, preserveDefaultVlan }: Omit<VlanPort, 'trunk'>,
): void {
  socket.execute(setLink(port.index, { master: bridge.index, up: true }, port.name));
  assignVlans(socket, port, { vlan, trunk: [], preserveDefaultVlan });
}

/** The VLANs whose frames have tags on the port. */
function taggedOf({ trunk }: VlanPort): BridgeVlan[] {
  return trunk.map(({ first, last }) => (first === last ? { vid: first } : { vid: first, end: last }));
}

/** The VLAN of untagged frames, which may be among the tagged ones: then it has no tags all the same. */
function untaggedOf({ vlan, trunk, preserveDefaultVlan }: VlanPort): BridgeVlan[] {
  if (vlan > 0) return [{ vid: vlan, pvid: true, untagged: true }];
  // A trunk without a VLAN of its own keeps VLAN 1 for untagged frames.
  return trunk.length > 0 && !preserveDefaultVlan ? [{ vid: 1, pvid: true, untagged: true }] : [];
}
