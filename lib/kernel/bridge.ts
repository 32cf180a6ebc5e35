/** Bridges and the node's own address on them. */

import type { Prefix } from '../ip.ts';
import { isKernelError } from '../netlink/libc.ts';
import { addAddress, deleteAddress, listAddresses } from './address.ts';
import { bridgeKind, createLink, getLink, type Link, requireLink, setLink } from './link.ts';
import type { RouteSocket } from './route-socket.ts';
import { ensureSysctl } from './sysctl.ts';

/**
 * Makes a bridge unless it is there, and sees that it is up.
 * @param options.mtu in bytes, and vlanFiltering: only for a bridge that is made now. One that is there keeps what it has.
 * @throws Error when an interface of that name is no bridge.
 */
export function ensureBridge(
  socket: RouteSocket,
  name: string,
  options: { mtu?: number; vlanFiltering?: boolean; promisc?: boolean } = {},
): Link {
  const { mtu = 0, vlanFiltering = false, promisc = false } = options;
  let link = getLink(socket, name);
  if (!link) {
    try {
      socket.execute(createLink(bridgeKind({ vlanFiltering }), { name, mtu, up: true }));
    } catch (error) {
      // Somebody else was faster.
      if (!isKernelError(error, 'EEXIST')) throw error;
    }
    link = requireLink(socket, name);
  }
  if (link.kind !== 'bridge')
    throw new Error(
      `Interface "${name}" is ${link.kind ? `of kind "${link.kind}"` : 'a physical interface'}, not a bridge. Name another "bridge" in the configuration, or remove the interface`,
    );
  ensureSysctl(['ipv6', 'conf', name, 'accept_ra'], '0');
  if (!link.up || (promisc && link.promiscuity === 0)) {
    socket.execute(setLink(link.index, { up: true, ...(promisc && { promisc }) }, name));
    link = requireLink(socket, name);
  }
  return link;
}

/**
 * Gives the bridge the containers' gateway address, and pins its MAC address: else it would follow its ports'.
 * @param force replace an address that is in the way.
 * @throws Error when another address is in the way: any other IPv4 address, or an IPv6 one whose subnet overlaps.
 */
export function ensureGatewayAddress(socket: RouteSocket, link: Link, gateway: Prefix, force = false): void {
  const present = listAddresses(socket, link.index, gateway.family).map(({ prefix }) => prefix);
  if (present.some((prefix) => prefix.equals(gateway))) return;
  const inTheWay = present.filter((prefix) => gateway.family === 4 || prefix.overlaps(gateway));
  if (inTheWay.length > 0 && !force)
    throw new Error(
      `Bridge "${link.name}" has address ${inTheWay[0]} where ${gateway} is wanted. Remove it, use another bridge, or set "forceAddress"`,
    );
  if (gateway.family === 6) ensureSysctl(['ipv6', 'conf', link.name, 'disable_ipv6'], '0');
  try {
    socket.execute(
      ...inTheWay.map((prefix) => deleteAddress(link.index, prefix, link.name)),
      addAddress(link.index, gateway, { noDad: true, label: link.name }),
      setLink(link.index, { mac: link.mac }, link.name),
    );
  } catch (error) {
    // Somebody else was faster; the same address is what both want.
    if (!isKernelError(error, 'EEXIST')) throw error;
  }
}
