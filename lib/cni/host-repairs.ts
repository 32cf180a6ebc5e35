/** What an attachment may have lost on the host, whichever plugin made it. */

import { Address, Prefix } from '../ip.ts';
import { addAddress, listAddresses } from '../kernel/address.ts';
import { type Link, setLink } from '../kernel/link.ts';
import { parseMac } from '../kernel/mac.ts';
import { addRoute, listRoutes, RouteProtocol, RouteScope, RouteTable } from '../kernel/route.ts';
import type { RouteSocket } from '../kernel/route-socket.ts';
import { readSysctl } from '../kernel/sysctl.ts';
import { enableForwarding } from './interface.ts';
import type { Repair } from './plugin.ts';
import type { IPConfig } from './result.ts';

/** Metric of the routes to IPv6 subnets that the kernel makes (IP6_RT_PRIO_ADDRCONF). */
const subnetMetric = 256;

/** The settings that {@link enableForwarding} makes. */
export function forwardingRepairs(ips: readonly IPConfig[]): Repair[] {
  const settings = { 4: ['ipv4', 'ip_forward'], 6: ['ipv6', 'conf', 'all', 'forwarding'] };
  return ([4, 6] as const).flatMap((family) => {
    const own = ips.filter(({ address }) => address.family === family);
    // Undefined in a kernel without IPv6.
    return own.length > 0 && readSysctl(settings[family]) === '0'
      ? [{ what: `forwarding of IPv${family}`, restore: () => enableForwarding(own) }]
      : [];
  });
}

/** The repair of an interface that is not up. */
export function upRepairs(host: RouteSocket, { index, name, up }: Link): Repair[] {
  const restore = () => void host.execute(setLink(index, { up: true }, name));
  return up ? [] : [{ what: `state "up" of interface "${name}"`, restore }];
}

/**
 * The link-local IPv6 address, which the kernel makes when an interface comes up, and without which it cannot
 * look for neighbours.
 */
export function linkLocalRepairs(host: RouteSocket, { index, name, mac, operState }: Link): Repair[] {
  const bytes = parseMac(mac);
  const present = listAddresses(host, index, 6).some(({ prefix }) => prefix.address.isLinkLocal);
  if (operState !== 'up' || present || !bytes) return [];
  const [first = 0, ...rest] = bytes;
  // As the kernel derives it from the MAC address: RFC 4291, appendix A.
  const identifier = [first ^ 0x02, ...rest.slice(0, 2), 0xff, 0xfe, ...rest.slice(2)];
  const address = Address.fromBytes(Uint8Array.from([0xfe, 0x80, 0, 0, 0, 0, 0, 0, ...identifier]));
  const prefix = new Prefix(address, 64);
  return [
    {
      what: `address ${prefix} of interface "${name}"`,
      restore: () => void host.execute(addAddress(index, prefix, { noDad: true, label: name })),
    },
  ];
}

/**
 * The routes to the subnets of an interface's addresses, which the kernel makes with each address.
 * @param addresses the interface's addresses.
 */
export function missingRoutes(
  host: RouteSocket,
  { index, name }: Link,
  addresses: readonly Prefix[],
): Repair[] {
  return addresses.flatMap((prefix) => {
    const { family, address: src, network: dst } = prefix;
    const present = listRoutes(host, { family, link: index, table: RouteTable.Main });
    if (prefix.length === src.toPrefix().length || present.some((route) => route.dst.equals(dst))) return [];
    const shared = { dst, link: index, protocol: RouteProtocol.Kernel };
    const route =
      family === 4 ? { ...shared, src, scope: RouteScope.Link } : { ...shared, priority: subnetMetric };
    return [
      {
        what: `route to ${dst} by interface "${name}"`,
        restore: () => void host.execute(addRoute(route)),
      },
    ];
  });
}
