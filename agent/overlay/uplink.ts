/** The interface by which this node reaches the others, and the addresses at which they reach it. */

import { setTimeout as sleep } from 'node:timers/promises';
import { Address, type Family } from '../../lib/ip.ts';
import { listAddresses } from '../../lib/kernel/address.ts';
import { getLink, type Link, listLinks } from '../../lib/kernel/link.ts';
import { listRoutes, RouteTable } from '../../lib/kernel/route.ts';
import type { RouteSocket } from '../../lib/kernel/route-socket.ts';
import type { OverlaySettings } from './settings.ts';

/** How often the interface is checked, in milliseconds. */
const lookInterval = 1000;

/** The interface is no longer what the overlay was set up with. Like flanneld, the node stays with it. */
export class UplinkError extends Error {
  override readonly name = 'UplinkError';
}

/** How this node is connected to the others. */
export interface Uplink {
  readonly link: Link;
  /** The interface's own addresses. */
  readonly local: Readonly<Record<Family, Address | undefined>>;
  /** Those at which the others reach it, which differ where a router translates them. */
  readonly publicIp: Readonly<Record<Family, Address | undefined>>;
}

/**
 * Finds the interface that the settings name, by default that of the default route, and its addresses.
 * @param former what was found before: it must be the same interface again.
 * @throws UplinkError when that one is gone, or has lost its IPv4 address; Error when no interface is found,
 *   or it has no IPv4 address.
 */
export function findUplink(socket: RouteSocket, settings: OverlaySettings, former?: Uplink): Uplink {
  const link = former ? getLink(socket, former.link.name) : findLink(socket, settings.iface);
  if (!link) throw lost(former!, 'is gone');
  const named = settings.iface === undefined ? undefined : Address.tryParse(settings.iface);
  const own = listAddresses(socket, link.index).map(({ prefix }) => prefix.address);
  const usual = own.filter((one) => !one.isLinkLocal && !one.isLoopback);
  const has = (address: Address | undefined) => address && own.find((one) => one.equals(address));
  const localOf = (family: Family) =>
    named?.family === family
      ? has(named)
      : // Another address may come back before the one that the others know.
        (has(former?.local[family]) ?? usual.find((address) => address.family === family));
  const local = { 4: localOf(4), 6: localOf(6) };
  if (!local[4] && former) throw lost(former, 'has lost its IPv4 address');
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

function lost({ link }: Uplink, how: string): UplinkError {
  return new UplinkError(
    `Interface "${link.name}", by which this node reaches the others, ${how}. Create it again with its addresses, or restart the agent to use another one. The agent keeps looking for it`,
  );
}

/**
 * Waits until the interface changes: it is gone, or has another address or MTU. One that was re-created, even
 * with the same name, is another one.
 * @param families whose addresses count.
 * @throws UplinkError then; Error when the signal is aborted.
 */
export async function watchUplink(
  socket: RouteSocket,
  settings: OverlaySettings,
  uplink: Uplink,
  families: readonly Family[],
  signal: AbortSignal,
): Promise<never> {
  for (;;) {
    if (!getLink(socket, uplink.link.index)) throw lost(uplink, 'is gone');
    const changes = changesOf(uplink, findUplink(socket, settings, uplink), families);
    if (changes.length > 0)
      throw new UplinkError(
        `Interface "${uplink.link.name}", by which this node reaches the others, has changed: ${changes.join(', ')}. The overlay is set up anew`,
      );
    await sleep(lookInterval, undefined, { signal });
  }
}

/** What differs, as in "IPv4 address 192.0.2.1 before, 192.0.2.9 now". */
function changesOf(before: Uplink, now: Uplink, families: readonly Family[]): string[] {
  const pairs = [
    ['MTU (running pods keep theirs)', before.link.mtu, now.link.mtu],
    ...families.map((family) => [`IPv${family} address`, before.local[family], now.local[family]]),
  ];
  return pairs.flatMap(([what, old, found]) =>
    `${old}` === `${found}` ? [] : [`${what} ${old ?? 'none'} before, ${found ?? 'none'} now`],
  );
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
