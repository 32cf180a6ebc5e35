/** VLANs of a bridge's ports. Sources: bridge(8), linux/if_bridge.h. */

import { requireGone } from '../netlink/error.ts';
import { isKernelError } from '../netlink/libc.ts';
import { addBridgeVlan, type BridgeVlan, deleteBridgeVlan, listBridgeVlans } from './bridge-port.ts';
import { createLink, deleteLink, getLink, type Link, listPorts, requireLink, setLink } from './link.ts';
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
  // Tagged VLANs first: a VLAN that is added twice has the flags of the second time.
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
 * veth pair whose peer is a port of the bridge in that VLAN. An existing one is completed, as an ADD that was
 * killed may have left it half made.
 */
export function ensureVlanInterface(
  socket: RouteSocket,
  bridge: Link,
  { vlan, preserveDefaultVlan }: VlanPort,
  warn: (message: string) => void,
): Link {
  const name = `${bridge.name}.${vlan}`;
  const isNew = !getLink(socket, name) && createPair(socket, name, bridge.mtu);
  try {
    const link = requireLink(socket, name);
    const port = vlanPort(socket, link);
    if (isNew)
      for (const end of [name, port!.name]) preferSysctl(['ipv6', 'conf', end, 'accept_ra'], '0', warn);
    if (port && !isJoined(socket, bridge, port, vlan))
      joinVlan(socket, bridge, port, { vlan, preserveDefaultVlan });
    if (!link.up) socket.execute(setLink(link.index, { up: true }, name));
    return requireLink(socket, name);
  } catch (error) {
    if (isNew) socket.attempt(deleteLink(0, name));
    throw error;
  }
}

/**
 * Deletes the interface of {@link ensureVlanInterface}, unless another port of the bridge is in its VLAN: the
 * container of that port may need it.
 */
export function deleteUnusedVlanInterface(socket: RouteSocket, bridgeName: string, vlan: number): void {
  const link = getLink(socket, `${bridgeName}.${vlan}`);
  const port = link && vlanPort(socket, link);
  const bridge = getLink(socket, bridgeName);
  if (!port || !bridge || port.master !== bridge.index) return;
  const others = listPorts(socket, bridge.index).filter(({ index }) => index !== port.index);
  const isUsed = others.some(({ index }) => listBridgeVlans(socket, index).some(({ vid }) => vid === vlan));
  // Another call may be faster.
  if (!isUsed) requireGone(socket.attempt(deleteLink(link.index, link.name)));
}

/** @returns false when somebody else was faster. */
function createPair(socket: RouteSocket, name: string, mtu: number): boolean {
  try {
    socket.execute(createLink(vethKind({ name: randomVethName(), mtu }), { name, mtu }));
    return true;
  } catch (error) {
    if (isKernelError(error, 'EEXIST') && getLink(socket, name)) return false;
    throw error;
  }
}

/**
 * The peer of an interface of {@link ensureVlanInterface}.
 * @returns undefined for something that others have made in its place.
 */
export function vlanPort(socket: RouteSocket, { kind, parent, parentNetnsId }: Link): Link | undefined {
  if (kind !== 'veth' || !parent || parentNetnsId !== undefined) return undefined;
  return getLink(socket, parent);
}

/** Whether that peer is a port of the bridge, up, and in the VLAN with its untagged frames. */
export function isJoined(socket: RouteSocket, bridge: Link, port: Link, vlan: number): boolean {
  const vlans = () => listBridgeVlans(socket, port.index);
  return (
    port.master === bridge.index && port.up && vlans().some(({ vid, pvid }) => vid === vlan && pvid === true)
  );
}

/** @throws Error when the interface of {@link ensureVlanInterface} is missing or incomplete. */
export function checkVlanInterface(socket: RouteSocket, bridge: Link, vlan: number): void {
  const name = `${bridge.name}.${vlan}`;
  const link = getLink(socket, name);
  if (!link) throw new Error(`Interface "${name}" with the gateway's addresses is missing. Run "cni repair"`);
  if (!link.up) throw new Error(`Interface "${name}" with the gateway's addresses is down. Run "cni repair"`);
  const port = vlanPort(socket, link);
  if (port && !isJoined(socket, bridge, port, vlan))
    throw new Error(
      `Interface "${port.name}", the peer of "${name}", is not a port of bridge "${bridge.name}" that is up and in VLAN ${vlan}. Run "cni repair"`,
    );
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

/**
 * The VLAN of untagged frames, which may be among the tagged ones too: its frames have no tags all the same.
 */
function untaggedOf({ vlan, trunk, preserveDefaultVlan }: VlanPort): BridgeVlan[] {
  if (vlan > 0) return [{ vid: vlan, pvid: true, untagged: true }];
  // A trunk without a VLAN of its own keeps VLAN 1 for untagged frames.
  return trunk.length > 0 && !preserveDefaultVlan ? [{ vid: 1, pvid: true, untagged: true }] : [];
}
