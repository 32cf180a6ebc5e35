/** The interface by which this node reaches the others, and the addresses that they reach it at. */

import { setTimeout as sleep } from 'node:timers/promises';
import { Address, type Family } from '../../lib/ip.ts';
import { listAddresses } from '../../lib/kernel/address.ts';
import { getLink, type Link, listLinks } from '../../lib/kernel/link.ts';
import { listRoutes, RouteTable } from '../../lib/kernel/route.ts';
import type { RouteSocket } from '../../lib/kernel/route-socket.ts';
import type { OverlaySettings } from './settings.ts';

/** How often it is looked whether the interface is there, in milliseconds. */
const lookInterval = 1000;

/** The interface is gone, or has no address. As flanneld does, the node stays with it, and waits for it. */
export class UplinkGoneError extends Error {
  override readonly name = 'UplinkGoneError';

  constructor({ link }: Uplink) {
    super(
      `Interface "${link.name}", by which this node reaches the others, is gone. Make it anew with its addresses, or restart the agent for another one`,
    );
  }
}

/** How this node is connected to the others. */
export interface Uplink {
  readonly link: Link;
  /** The interface's own addresses. */
  readonly local: Readonly<Record<Family, Address | undefined>>;
  /** Those that the others reach it at, which differ where a router translates them. */
  readonly publicIp: Readonly<Record<Family, Address | undefined>>;
}

/**
 * Finds the interface that the settings name, by default that of the default route, and its addresses.
 * @param former what was found before: it has to be that interface again.
 * @throws UplinkGoneError when that is gone. Error when there is none, or it has no IPv4 address.
 */
export function findUplink(socket: RouteSocket, settings: OverlaySettings, former?: Uplink): Uplink {
  const link = former ? getLink(socket, former.link.name) : findLink(socket, settings.iface);
  if (!link) throw new UplinkGoneError(former!);
  const named = settings.iface === undefined ? undefined : Address.tryParse(settings.iface);
  const all = listAddresses(socket, link.index)
    .map(({ prefix }) => prefix.address)
    .filter((one) => !one.isLinkLocal && !one.isLoopback);
  // Another address may come back before the one that the others know.
  const has = (address: Address | undefined) => address && all.find((one) => one.equals(address));
  const localOf = (family: Family) =>
    named?.family === family
      ? named
      : (has(former?.local[family]) ?? all.find((address) => address.family === family));
  const local = { 4: localOf(4), 6: localOf(6) };
  if (!local[4] && former) throw new UplinkGoneError(former);
  if (!local[4])
    throw new Error(
      `Interface "${link.name}" has no IPv4 address to reach the other nodes by. Give it one, or set "iface"`,
    );
  return {
    link,
    local,
    publicIp: { 4: settings['public-ip'] ?? local[4], 6: settings['public-ipv6'] ?? local[6] },
  };
}

/**
 * Waits until the interface is gone: one that is made anew, also of the same name, is another one, which has
 * to be found again.
 * @throws UplinkGoneError then; Error when the signal is aborted.
 */
export async function watchUplink(socket: RouteSocket, uplink: Uplink, signal: AbortSignal): Promise<never> {
  while (getLink(socket, uplink.link.index)) await sleep(lookInterval, undefined, { signal });
  throw new UplinkGoneError(uplink);
}

function findLink(socket: RouteSocket, iface: string | undefined): Link {
  if (iface === undefined) {
    const routes = listRoutes(socket, { table: RouteTable.Main }).filter(({ dst }) => dst.length === 0);
    const metric = ({ priority = 0 }: { priority?: number | undefined }) => priority;
    const [best] = routes.sort((a, b) => a.family - b.family || metric(a) - metric(b));
    const index = best?.link ?? best?.hops[0]?.link;
    const link = index === undefined ? undefined : getLink(socket, index);
    if (link) return link;
    throw new Error(
      'This node has no default route, whose interface would be taken. Set "iface" to the interface that leads to the other nodes',
    );
  }
  const address = Address.tryParse(iface);
  const owner = address && listAddresses(socket).find(({ prefix }) => prefix.address.equals(address));
  const link = address
    ? owner && listLinks(socket).find(({ index }) => index === owner.link)
    : getLink(socket, iface);
  if (link) return link;
  throw new Error(
    `"iface" is "${iface}", but this node has no such interface or address. Correct it, or leave it out`,
  );
}
