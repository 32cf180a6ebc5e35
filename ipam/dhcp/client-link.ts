/** The interface that a lease is for. */

import { getLink, requireLink, setLink } from '../../lib/kernel/link.ts';
import { parseMac } from '../../lib/kernel/mac.ts';
import type { Netns } from '../../lib/kernel/netns.ts';
import { openRouteSocket } from '../../lib/kernel/route-socket.ts';
import type { ClientLink } from './link-socket.ts';

/** The interface, up. @throws Error when it does not exist, or has no MAC address. */
export function prepareLink(netns: Netns, ifname: string): ClientLink {
  using socket = openRouteSocket(netns);
  const link = requireLink(socket, ifname);
  if (!link.up) socket.execute(setLink(link.index, { up: true }, ifname));
  const client = clientLink(netns, ifname);
  if (!client)
    throw new Error(`Interface "${ifname}" has no MAC address, which DHCP needs. Use another IPAM plugin`);
  return client;
}

/** Tells an interface from all others until the host is rebooted. */
export function identityOf({ netns, index }: ClientLink): string {
  return `${netns.identity()}, interface ${index}`;
}

/** The interface's index in what {@link identityOf} returned. */
export function indexIn(identity: string | undefined): number | undefined {
  const [, index] = / (\d+)$/.exec(identity ?? '') ?? [];
  return index === undefined ? undefined : Number(index);
}

/** An interface that can have a lease; undefined when there is none. @param which its name or index. */
export function clientLink(netns: Netns, which: string | number): ClientLink | undefined {
  using socket = openRouteSocket(netns);
  const link = getLink(socket, which);
  const mac = link && parseMac(link.mac);
  return link && mac && { netns, index: link.index, name: link.name, mac };
}
