/** The interface that a main plugin puts into a sandbox: its name, settings, addresses and routes. */

import type { Address, Family, Prefix } from '../ip.ts';
import { AddressFlag, addAddress, listAddresses } from '../kernel/address.ts';
import { NetlinkGroup, waitForEvent } from '../kernel/events.ts';
import { getLink, type Link, requireLink, setLink } from '../kernel/link.ts';
import { addRoute, deleteRoute, RouteProtocol, RouteScope } from '../kernel/route.ts';
import type { Sandbox } from '../kernel/sandbox.ts';
import { ensureSysctl, preferSysctl } from '../kernel/sysctl.ts';
import { isKernelError } from '../netlink/libc.ts';
import type { Request } from '../netlink/message.ts';
import type { Call } from './call.ts';
import type { IPConfig, Result, Route } from './result.ts';

/** The first gateway of each family. */
export function gatewayOf(ips: readonly IPConfig[], family: Family): Address | undefined {
  return ips.find((ip) => ip.address.family === family && ip.gateway)?.gateway;
}

/**
 * The gateway of a route in a result: its own, or else the first of its family. An IPv4 route of scope link
 * or host gets none, as the kernel refuses one there. IPv6 has no scopes.
 */
export function nextHop({ dst, gw, scope = RouteScope.Universe }: Route, ips: readonly IPConfig[]) {
  return gw ?? (scope < RouteScope.Link || dst.family === 6 ? gatewayOf(ips, dst.family) : undefined);
}

/** How an interface is configured. */
export interface InterfaceOptions {
  /** Leave it down, without addresses. */
  keepDown?: boolean;
  /** Announce addresses when the interface comes up; true when left out. */
  announce?: boolean;
  /**
   * Ask the network whether an IPv6 address is in use already, and wait for the answer. When it is left out,
   * our addresses are used at once, and the kernel decides for those that it generates itself.
   */
  detectDuplicates?: boolean;
  /** Reach even neighbours in the subnet through the gateway, as nobody else is on the link. */
  onlyByGateway?: boolean;
}

/**
 * Refuses an interface name that is taken in the sandbox, as it is on a second ADD of the same attachment.
 */
export function refuseTakenName(call: Call): void {
  if (getLink(call.sandbox.socket, call.ifname))
    throw new Error(
      `Sandbox "${call.netns}" already has an interface "${call.ifname}". Run DEL for it first, or use another CNI_IFNAME`,
    );
}

/**
 * Makes a new interface ready for addresses, and brings it up.
 * @throws Error when another interface on its parent has its MAC address.
 */
export function prepareInterface(call: Call, link: Link, options: InterfaceOptions = {}): void {
  const { keepDown = false, announce = true, detectDuplicates } = options;
  if (keepDown) return;
  const { netns, socket } = call.sandbox;
  const set = (path: readonly string[], value: string) =>
    preferSysctl(path, value, (text) => call.warn(text));
  netns.run(() => {
    if (announce) {
      set(['ipv4', 'conf', link.name, 'arp_notify'], '1');
      set(['ipv6', 'conf', link.name, 'ndisc_notify'], '1');
    }
    if (detectDuplicates === undefined) return;
    set(['ipv6', 'conf', link.name, 'accept_dad'], detectDuplicates ? '1' : '0');
    if (detectDuplicates) set(['ipv6', 'conf', link.name, 'enhanced_dad'], '1');
  });
  try {
    socket.execute(setLink(link.index, { up: true }, link.name));
  } catch (error) {
    // macvlan_open in drivers/net/macvlan.c.
    if (!isKernelError(error, 'EADDRINUSE')) throw error;
    throw new Error(
      `MAC address "${link.mac}" belongs to another interface on the same master, or to the master itself. Delete the attachment that has it, or ask for another address`,
      { cause: error },
    );
  }
}

/**
 * Gives the sandbox's interface its addresses, and adds the routes.
 * @param result as it will be printed: addresses whose `interface` is this one's index are added. Routes go
 *   through {@link nextHop}.
 * @throws Error when an index refers to another interface, or the kernel refuses.
 */
export async function configureInterface(
  call: Call,
  result: Result,
  options: InterfaceOptions = {},
): Promise<void> {
  const { netns, socket } = call.sandbox;
  const { ifname } = call;
  const { detectDuplicates = false, onlyByGateway = false } = options;
  const addresses = result.ips.filter((ip) => ip.interface !== undefined);
  if (addresses.length === 0) return;
  const link = requireLink(socket, ifname);
  for (const ip of addresses)
    if (result.interfaces[ip.interface!]?.name !== ifname)
      throw new Error(
        `Address ${ip.address} belongs to interface ${ip.interface} of the result, which is not "${ifname}". Correct "interface" in what the IPAM plugin returns`,
      );
  const hasIPv6 = addresses.some((ip) => ip.address.family === 6);
  if (hasIPv6) netns.run(() => allowIPv6(ifname));

  socket.execute(
    ...addresses.map((ip) => addAddress(link.index, ip.address, { noDad: !detectDuplicates, label: ifname })),
  );
  if (detectDuplicates && hasIPv6) await waitForAddresses(call.sandbox, link);
  socket.execute(
    ...result.routes.map((route) => addRoute({ ...route, link: link.index, gw: nextHop(route, result.ips) })),
  );
  // Last: routes through another gateway need the subnet on the link at the moment they are added.
  if (onlyByGateway) socket.execute(...addresses.flatMap((ip) => gatewayRoutes(link, ip)));
}

/** The gateway is on the link, and the rest of the subnet behind it. */
function gatewayRoutes(link: Link, { address, gateway }: IPConfig): Request[] {
  if (!gateway) return [];
  const src = address.address;
  return [
    deleteRoute({ dst: address.network, link: link.index, protocol: RouteProtocol.Kernel }),
    addRoute({ dst: gateway.toPrefix(), link: link.index, src, scope: RouteScope.Link }),
    addRoute({ dst: address.network, link: link.index, src, gw: gateway }),
  ];
}

/** Enables IPv6 on the interface, as container runtimes often turn it off. */
function allowIPv6(ifname: string): void {
  for (const name of ['lo', ifname]) {
    if (!ensureSysctl(['ipv6', 'conf', name, 'disable_ipv6'], '0'))
      throw new Error(
        `The kernel has no IPv6, so "${ifname}" cannot have an IPv6 address. Boot without "ipv6.disable=1", or take IPv6 out of the network`,
      );
  }
  // Keeps the addresses when somebody takes the link down and up again; not worth failing for when it is
  // read-only.
  try {
    ensureSysctl(['ipv6', 'conf', ifname, 'keep_addr_on_down'], '1');
  } catch {}
}

/** Waits up to five seconds for duplicate address detection. */
async function waitForAddresses({ netns, socket }: Sandbox, link: Link): Promise<void> {
  const beingChecked = () =>
    listAddresses(socket, link.index, 6).find(({ prefix, flags }) => {
      if (flags & AddressFlag.DadFailed)
        throw new Error(
          `Somebody on the network has IPv6 address ${prefix.address} already. Free it there, or exclude it from the range`,
        );
      return flags & AddressFlag.Tentative;
    });
  if (await waitForEvent(NetlinkGroup.IPv6Address, 5000, () => !beingChecked(), netns)) return;
  // Without a carrier nobody can be asked.
  if (requireLink(socket, link.index).operState !== 'up') return;
  throw new Error(
    `IPv6 address ${beingChecked()?.prefix} of "${link.name}" is still being checked for duplicates after 5 seconds. Try again, or see with "ip -6 address" in the sandbox what becomes of it`,
  );
}

/** Lets the host forward packets of the families that the addresses have. */
export function enableForwarding(ips: readonly IPConfig[]): void {
  if (ips.some(({ address }) => address.family === 4)) ensureSysctl(['ipv4', 'ip_forward'], '1');
  if (ips.some(({ address }) => address.family === 6))
    ensureSysctl(['ipv6', 'conf', 'all', 'forwarding'], '1');
}

/**
 * The addresses that a result assigns to an interface of the call's name, or to no interface. Not every
 * plugin states that the interface is in the sandbox.
 */
export function addressesByName({ ifname }: Pick<Call, 'ifname'>, { ips, interfaces }: Result): IPConfig[] {
  return ips.filter((ip) => {
    const entry = interfaces[ip.interface ?? -1];
    return !entry || entry.name === ifname;
  });
}

/**
 * {@link addressesByName} without those that the result puts on the host, for rules and names that lead to
 * them.
 */
export function addressesInSandbox(call: Pick<Call, 'ifname'>, result: Result): IPConfig[] {
  return addressesByName(call, result).filter((ip) => {
    const entry = result.interfaces[ip.interface ?? -1];
    return !entry || entry.sandbox;
  });
}

/**
 * The attachment's addresses, if the runtime tells them: hints for cleaning up, which must work without them.
 */
export function knownAddresses(call: Call): Prefix[] {
  return call.prevResult ? addressesByName(call, call.prevResult).map(({ address }) => address) : [];
}

/** Addresses of the other interfaces but those of loopback; none when the sandbox no longer exists. */
export function neighbourAddresses({
  sandboxIfPresent: sandbox,
  ifname,
}: Pick<Call, 'sandboxIfPresent' | 'ifname'>): Address[] {
  if (!sandbox) return [];
  const own = getLink(sandbox.socket, ifname)?.index;
  return listAddresses(sandbox.socket)
    .filter(({ link, prefix }) => link !== own && !prefix.address.isLoopback)
    .map(({ prefix }) => prefix.address);
}
