/** Bridges and the host's own address on them. */

import { readFileSync } from 'node:fs';
import type { Prefix } from '../ip.ts';
import { requireGone, throwRefusal } from '../netlink/error.ts';
import { isKernelError } from '../netlink/libc.ts';
import { addAddress, deleteAddress, listAddresses } from './address.ts';
import { createLink, deleteLink, getLink, type Link, listPorts, requireLink, setLink } from './link.ts';
import { bridgeKind } from './link-kinds.ts';
import { formatMac } from './mac.ts';
import type { RouteSocket } from './route-socket.ts';
import { ensureSysctl, preferSysctl } from './sysctl.ts';

/** How {@link ensureBridge} creates a bridge. */
export interface BridgeOptions {
  /**
   * Bytes; 0 leaves it to the kernel. Only for a bridge that is created now: an existing one keeps its MTU.
   */
  mtu?: number;
  /** Whether ports have VLANs. Only for a bridge that is created now. */
  vlanFiltering?: boolean;
  promisc?: boolean;
}

/** For whom a bridge is created. */
export interface BridgeOwner {
  readonly host: RouteSocket;
  /** Told how to delete a bridge that was created. */
  undo(what: string, step: () => void): void;
  warn(message: string): void;
}

/**
 * Creates a bridge unless it exists, and makes sure that it is up.
 * @throws Error when an interface of that name is not a bridge.
 */
export function ensureBridge(owner: BridgeOwner, name: string, options: BridgeOptions = {}): Link {
  const { host: socket } = owner;
  const { mtu = 0, vlanFiltering = false, promisc = false } = options;
  let link = getLink(socket, name);
  if (!link) {
    try {
      socket.execute(createLink(bridgeKind({ vlanFiltering }), { name, mtu, up: true }));
      owner.undo(`delete bridge "${name}", if nobody uses it`, () => deleteIfUnused(socket, name));
    } catch (error) {
      // Somebody else was faster.
      if (!isKernelError(error, 'EEXIST')) throw error;
    }
    link = requireLink(socket, name);
  }
  refuseOtherKind(link);
  preferSysctl(['ipv6', 'conf', name, 'accept_ra'], '0', (message) => owner.warn(message));
  if (!link.up || (promisc && !link.promisc)) {
    socket.execute(setLink(link.index, { up: true, ...(promisc && { promisc }) }, name));
    link = requireLink(socket, name);
  }
  return link;
}

/** @throws Error when the interface of that name is not a bridge. */
export function refuseOtherKind({ name, kind }: Link): void {
  if (kind === 'bridge') return;
  throw new Error(
    `Interface "${name}" is ${kind ? `of kind "${kind}"` : 'a physical interface'}, not a bridge. Set another "bridge" in the configuration, or remove the interface`,
  );
}

/**
 * Tries again when the bridge has disappeared between being looked up and being used: another ADD that
 * created it may have failed and deleted it.
 */
export function retryIfGone<T>(step: () => T): T {
  try {
    return step();
  } catch (error) {
    // For a master that does not exist, the kernel returns EINVAL.
    if (!isKernelError(error, 'ENODEV', 'EINVAL')) throw error;
    return step();
  }
}

/** Deletes a bridge unless it has been given ports meanwhile. */
function deleteIfUnused(socket: RouteSocket, name: string): void {
  const bridge = getLink(socket, name);
  if (bridge && listPorts(socket, bridge.index).length === 0)
    requireGone(socket.attempt(deleteLink(bridge.index, name)));
}

/**
 * Gives the bridge the containers' gateway address, and pins its MAC address: otherwise it would follow its
 * ports', and every container would lose its gateway until its neighbour entry times out. It is pinned only
 * once, as the kernel then forgets every neighbour on the bridge (NETDEV_CHANGEADDR in net/ipv4/arp.c).
 * @param force replace an address that is in the way.
 * @throws Error when another address is in the way: any other IPv4 address, or an IPv6 one whose subnet
 *   overlaps.
 */
export function ensureGatewayAddress(socket: RouteSocket, link: Link, gateway: Prefix, force = false): void {
  const present = listAddresses(socket, link.index, gateway.family).map(({ prefix }) => prefix);
  const isPresent = present.some((prefix) => prefix.equals(gateway));
  const inTheWay = present.filter((prefix) => gateway.family === 4 || prefix.overlaps(gateway));
  if (!isPresent && inTheWay.length > 0 && !force)
    throw new Error(
      `Bridge "${link.name}" has address ${inTheWay[0]}, but should have ${gateway}. Remove it, use another bridge, or set "forceAddress"`,
    );
  if (gateway.family === 6) ensureSysctl(['ipv6', 'conf', link.name, 'disable_ipv6'], '0');
  // Whoever has given it the address may have left its MAC address to the kernel.
  if (!(isMacPinned(link.name) ?? isPresent))
    socket.execute(setLink(link.index, { mac: macToPin(requireLink(socket, link.index)) }, link.name));
  if (isPresent) return;
  const outcomes = socket.attempt(
    ...inTheWay.map((prefix) => deleteAddress(link.index, prefix, link.name)),
    addAddress(link.index, gateway, { noDad: true, label: link.name }),
  );
  // Another ADD may be faster: it adds the same address, and removes the same ones that are in the way.
  throwRefusal(outcomes, 'EEXIST', 'EADDRNOTAVAIL');
}

/**
 * Whether somebody has set the MAC address, as netlink does not tell (NET_ADDR_SET in linux/netdevice.h).
 * @returns undefined where sysfs does not tell either.
 */
function isMacPinned(name: string): boolean | undefined {
  try {
    return readFileSync(`/sys/class/net/${name}/addr_assign_type`, 'utf8').trim() === '3';
  } catch {
    return undefined;
  }
}

/**
 * The MAC address of a bridge, or a new one: a bridge whose last port has left has none, and no address can
 * be added to it.
 */
function macToPin({ mac }: Link): string {
  if (mac !== '00:00:00:00:00:00') return mac;
  const [first = 0, ...rest] = crypto.getRandomValues(new Uint8Array(6));
  // Locally administered, unicast.
  return formatMac(Uint8Array.of((first & 0xfc) | 0x02, ...rest));
}
