/**
 * The interface that a main plugin puts into a sandbox: its name, settings, addresses and routes, and what
 * CHECK finds of them.
 */

import type { Address, Family, Prefix } from '../ip.ts';
import { AddressFlag, addAddress, listAddresses } from '../kernel/address.ts';
import { NetlinkGroup, waitForEvent } from '../kernel/events.ts';
import { getLink, type Link, requireLink, setLink } from '../kernel/link.ts';
import { addRoute, deleteRoute, listRoutes, RouteProtocol, RouteScope } from '../kernel/route.ts';
import type { Sandbox } from '../kernel/sandbox.ts';
import { ensureSysctl, preferSysctl } from '../kernel/sysctl.ts';
import type { Request } from '../netlink/message.ts';
import type { Call } from './call.ts';
import { requirePrevResult } from './plugin.ts';
import type { Interface, IPConfig, Result } from './result.ts';

/** The first gateway of each family. */
export function gatewayOf(ips: readonly IPConfig[], family: Family): Address | undefined {
  return ips.find((ip) => ip.address.family === family && ip.gateway)?.gateway;
}

/** How an interface is configured. */
export interface InterfaceOptions {
  /** Leave it down, without addresses. */
  keepDown?: boolean;
  /** Announce addresses when the interface comes up; true when left out. */
  announce?: boolean;
  /**
   * Ask the network whether somebody has an IPv6 address already, and wait for the answer. When it is left
   * out, our addresses are used at once, and the kernel decides on those that it makes by itself.
   */
  detectDuplicates?: boolean;
  /** Reach even the neighbours in the subnet by the gateway, as the link leads to nobody else. */
  onlyByGateway?: boolean;
}

/**
 * Refuses an interface name that the sandbox has already, as it has for a second ADD of the same attachment.
 */
export function refuseTakenName(call: Call): void {
  if (getLink(call.sandbox.socket, call.ifname))
    throw new Error(
      `Sandbox "${call.netns}" already has an interface "${call.ifname}". Run DEL for it first, or use another CNI_IFNAME`,
    );
}

/** Makes a new interface ready for addresses, and brings it up. */
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
  socket.execute(setLink(link.index, { up: true }, link.name));
}

/**
 * Gives the sandbox's interface its addresses, and adds the routes.
 * @param result as it will be printed: addresses whose `interface` is this one's index are added. A route
 *   without a gateway gets the first gateway of its family.
 * @throws Error when an index leads elsewhere, or the kernel refuses.
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
    ...result.routes.map((route) =>
      addRoute({ ...route, link: link.index, gw: route.gw ?? gatewayOf(result.ips, route.dst.family) }),
    ),
  );
  // Last: routes by another gateway need the subnet on the link, if only for the moment they are added.
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

/** Takes IPv6 into use on the interface, where container runtimes often turn it off. */
function allowIPv6(ifname: string): void {
  for (const name of ['lo', ifname]) {
    if (!ensureSysctl(['ipv6', 'conf', name, 'disable_ipv6'], '0'))
      throw new Error(
        `The kernel has no IPv6, so "${ifname}" cannot have an IPv6 address. Boot without "ipv6.disable=1", or take IPv6 out of the network`,
      );
  }
  // Keeps the addresses when somebody takes the link down and up again; not worth failing for where it is
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

/**
 * The interface that an earlier ADD put into the sandbox, as the result has it.
 * @throws Error when it has none.
 */
function sandboxInterface(call: Call, result: Result): { index: number; entry: Interface } {
  const index = result.interfaces.findIndex(
    ({ name, sandbox }) => name === call.ifname && sandbox === call.netns,
  );
  const entry = result.interfaces[index];
  if (entry) return { index, entry };
  throw new Error(
    `"prevResult" has no interface "${call.ifname}" in sandbox "${call.netns}". Pass the result of this attachment's ADD`,
  );
}

/** What CHECK has found in order, for the plugin's own checks. */
export interface CheckedInterface {
  readonly link: Link;
  /** The interface as the result has it. */
  readonly entry: Interface;
}

/**
 * CHECK of what {@link configureInterface} made: the link is there, of the right kind, up, with its MAC,
 * addresses and routes.
 * @throws Error for the first difference.
 */
export function checkInterface(call: Call, kind: string, options: InterfaceOptions = {}): CheckedInterface {
  const result = requirePrevResult(call);
  const { index, entry } = sandboxInterface(call, result);
  const { sandbox } = call;
  const link = getLink(sandbox.socket, call.ifname);
  if (!link)
    throw new Error(
      `Interface "${call.ifname}" is missing from the sandbox. Delete the container and add it again`,
    );
  if (kind && link.kind !== kind)
    throw new Error(
      `Interface "${call.ifname}" is of kind "${link.kind}" where "${kind}" is wanted. Delete the container and add it again`,
    );
  if (entry.mac && entry.mac !== link.mac)
    throw new Error(
      `Interface "${call.ifname}" has MAC address ${link.mac} where ${entry.mac} is wanted. Set it with "${inSandbox(call, `ip link set ${call.ifname} address ${entry.mac}`)}"`,
    );
  if (!link.up && !options.keepDown)
    throw new Error(
      `Interface "${call.ifname}" is down in the sandbox. Bring it up with "${inSandbox(call, `ip link set ${call.ifname} up`)}"`,
    );
  checkAddresses(
    call,
    link,
    result.ips.filter((ip) => ip.interface === undefined || ip.interface === index),
  );
  checkRoutes(call, call.sandbox, result);
  return { link, entry };
}

/** The command line that runs another one in the network namespace of the sandbox. Source: nsenter(1). */
function inSandbox({ netns }: Pick<Call, 'netns'>, commandLine: string): string {
  return `nsenter --net=${netns} ${commandLine}`;
}

function checkAddresses(call: Call, link: Link, ips: readonly IPConfig[]): void {
  const present = listAddresses(call.sandbox.socket, link.index);
  for (const { address } of ips)
    if (!present.some(({ prefix }) => prefix.equals(address)))
      throw new Error(
        `Interface "${link.name}" has no address ${address}; it has ${present.map(({ prefix }) => prefix).join(', ') || 'none'}. ` +
          `Add it with "${inSandbox(call, `ip address add ${address} dev ${link.name}`)}"`,
      );
}

/**
 * CHECK of the routes of a result. Later plugins may have added routes or changed gateways of the default
 * route, so only what is missing counts.
 * @throws Error for the first one that the sandbox does not have.
 */
export function checkRoutes(
  attached: Pick<Call, 'netns' | 'ifname'>,
  { socket }: Sandbox,
  result: Result,
): void {
  for (const family of [4, 6] as const) {
    const wanted = result.routes.filter(({ dst }) => dst.family === family);
    if (wanted.length === 0) continue;
    const present = listRoutes(socket, { family });
    for (const { dst, gw, table } of wanted) {
      const found = present.some(
        (route) =>
          route.dst.equals(dst.network) &&
          (table === undefined || route.table === table) &&
          (dst.length === 0 || !gw || gw.equals(route.gw) || route.hops.some((hop) => gw.equals(hop.gw))),
      );
      if (found) continue;
      const via = gw ?? gatewayOf(result.ips, family);
      // Routes to the gateway itself may be gone as well.
      const hop = via ? ['via', via, 'dev', attached.ifname, 'onlink'] : ['dev', attached.ifname];
      const route = [dst, ...hop, ...(table ? ['table', table] : [])].join(' ');
      throw new Error(
        `The sandbox has no route to ${dst}${gw && dst.length > 0 ? ` via ${gw}` : ''}. ` +
          `Add it with "${inSandbox(attached, `ip route add ${route}`)}"`,
      );
    }
  }
}

/** Lets the host forward packets of the families that the addresses have. */
export function enableForwarding(ips: readonly IPConfig[]): void {
  if (ips.some(({ address }) => address.family === 4)) ensureSysctl(['ipv4', 'ip_forward'], '1');
  if (ips.some(({ address }) => address.family === 6))
    ensureSysctl(['ipv6', 'conf', 'all', 'forwarding'], '1');
}

/**
 * The addresses that a result gives an interface of the call's name, or no interface at all. Not every plugin
 * says that the interface is in the sandbox.
 */
export function addressesByName({ ifname }: Pick<Call, 'ifname'>, { ips, interfaces }: Result): IPConfig[] {
  return ips.filter((ip) => {
    const entry = interfaces[ip.interface ?? -1];
    return !entry || entry.name === ifname;
  });
}

/** Those of {@link addressesByName} without any that the result has on the host, for what leads to them. */
export function addressesInSandbox(call: Pick<Call, 'ifname'>, result: Result): IPConfig[] {
  return addressesByName(call, result).filter((ip) => {
    const entry = result.interfaces[ip.interface ?? -1];
    return !entry || entry.sandbox;
  });
}

/** The addresses of an attachment as far as the runtime tells: hints for cleaning up, never needed. */
export function knownAddresses(call: Call): Prefix[] {
  return call.prevResult ? addressesByName(call, call.prevResult).map(({ address }) => address) : [];
}

/** The addresses of the container's other interfaces; none when the sandbox no longer exists. */
export function neighbourAddresses({
  sandboxIfPresent: sandbox,
  ifname,
}: Pick<Call, 'sandboxIfPresent' | 'ifname'>): Address[] {
  if (!sandbox) return [];
  const own = getLink(sandbox.socket, ifname)?.index;
  return listAddresses(sandbox.socket)
    .filter(({ link }) => link !== own)
    .map(({ prefix }) => prefix.address);
}
