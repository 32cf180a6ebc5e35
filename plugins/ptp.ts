/** ptp: a veth pair between the host and the sandbox, with every address routed over it. */

import { setTimeout as sleep } from 'node:timers/promises';
import { requireHostEnd } from '../lib/cni/host-end.ts';
import { enableForwarding } from '../lib/cni/interface.ts';
import { type Attached, defineMainPlugin } from '../lib/cni/main-plugin.ts';
import { masqueradeShape } from '../lib/cni/masquerade-shape.ts';
import { type Repair, requirePrevResult } from '../lib/cni/plugin.ts';
import { removeVethPair } from '../lib/cni/remove-interface.ts';
import type { IPConfig } from '../lib/cni/result.ts';
import { integer } from '../lib/cni/schema.ts';
import type { Address } from '../lib/ip.ts';
import { addAddress, listAddresses } from '../lib/kernel/address.ts';
import { getLink, type Link, LinkFlag } from '../lib/kernel/link.ts';
import { addOnlyRoute, listRoutes, RouteScope, RouteTable } from '../lib/kernel/route.ts';
import type { RouteSocket } from '../lib/kernel/route-socket.ts';
import { ensureSysctl } from '../lib/kernel/sysctl.ts';
import { createVethPair, type VethPair } from '../lib/kernel/veth.ts';
import { isKernelError } from '../lib/netlink/libc.ts';

/** How long the interface of a pod may outlive its address on DEL, in milliseconds. */
const longestDeletion = 10_000;
/** Pause before a conflicting route is looked at again, in milliseconds. */
const pause = 25;

export const plugin = defineMainPlugin({
  name: 'ptp',
  summary: 'Connects a sandbox to the host by a veth pair of its own.',
  kind: 'veth',
  needsIpam: true,
  config: {
    ...masqueradeShape,
    mtu: integer({ max: 65535, description: 'MTU of both interfaces in bytes; 0 leaves it to the kernel.' }),
  },

  explain: () => [
    'Creates a veth pair between the host and the container',
    'Routes everything of the container over it by the gateway, and the address to it on the host; turns forwarding on',
  ],

  create(call): Attached & VethPair {
    const { hostLink, sandboxLink } = createVethPair(call, {
      name: call.ifname,
      mtu: call.config.mtu ?? 0,
    });
    return {
      interfaces: [
        { name: hostLink.name, mac: hostLink.mac },
        { name: sandboxLink.name, mac: sandboxLink.mac, sandbox: call.netns },
      ],
      link: sandboxLink,
      hostLink,
      sandboxLink,
    };
  },

  options: () => ({ announce: false, onlyByGateway: true }),

  complete(_, { ips }) {
    const withoutGateway = ips.find(({ gateway }) => !gateway);
    if (withoutGateway)
      throw new Error(
        `The IPAM plugin gave address ${withoutGateway.address} without a gateway. Set "gateway" in its range`,
      );
  },

  async connect(call, { hostLink }, { ips }) {
    enableForwarding(ips);
    serveGateways(call.host, hostLink, gatewaysOf(ips));
    for (const { address } of ips) await routeTo(call.host, address.address, hostLink);
  },

  remove: removeVethPair,

  check(call, { link }) {
    // Not the operational state, which follows later.
    if (!(link.flags & LinkFlag.LowerUp))
      throw new Error(`Interface "${call.ifname}" has no peer that is up. Run "cni repair"`);
  },

  async repair(call) {
    const { ips } = requirePrevResult(call);
    const { host } = call;
    const hostLink = requireHostEnd(call);
    const { forwardingRepairs, linkLocalRepairs, upRepairs } = await import('../lib/cni/host-repairs.ts');
    return [
      ...upRepairs(host, hostLink),
      ...addressRepairs(host, hostLink, ips),
      ...(ips.some(({ address }) => address.family === 6) ? linkLocalRepairs(host, hostLink) : []),
      ...routeRepairs(host, hostLink, ips),
      ...forwardingRepairs(ips),
    ];
  },
});

/** The gateways of a pod, each once. */
function gatewaysOf(ips: readonly IPConfig[]): Address[] {
  const gateways = ips.flatMap(({ gateway }) => gateway ?? []);
  return [...new Map(gateways.map((gateway) => [`${gateway}`, gateway])).values()];
}

/** Gives the host's end the gateways' addresses. */
function serveGateways(host: RouteSocket, { index, name }: Link, gateways: readonly Address[]): void {
  if (gateways.some(({ family }) => family === 6)) ensureSysctl(['ipv6', 'conf', name, 'disable_ipv6'], '0');
  host.execute(
    ...gateways.map((gateway) => addAddress(index, gateway.toPrefix(), { noDad: true, label: name })),
  );
}

function addressRepairs(host: RouteSocket, hostLink: Link, ips: readonly IPConfig[]): Repair[] {
  const present = listAddresses(host, hostLink.index);
  return gatewaysOf(ips)
    .filter((gateway) => !present.some(({ prefix }) => prefix.equals(gateway.toPrefix())))
    .map((gateway) => ({
      what: `address ${gateway.toPrefix()} of interface "${hostLink.name}"`,
      restore: () => serveGateways(host, hostLink, [gateway]),
    }));
}

function routeRepairs(host: RouteSocket, hostLink: Link, ips: readonly IPConfig[]): Repair[] {
  const present = listRoutes(host).filter(
    ({ link, table }) => link === hostLink.index && table === RouteTable.Main,
  );
  return ips
    .map(({ address }) => address.address)
    .filter((address) => !present.some(({ dst }) => dst.equals(address.toPrefix())))
    .map((address) => ({
      what: `route to ${address.toPrefix()} by interface "${hostLink.name}"`,
      restore: () => routeTo(host, address, hostLink),
    }));
}

/**
 * Routes an address over the pair. A pod whose DEL is under way may have given the address back while its
 * interface still exists, so this waits for a while.
 * @throws Error when the address still leads elsewhere then: it was given away twice.
 */
async function routeTo(host: RouteSocket, address: Address, hostLink: Link): Promise<void> {
  const dst = address.toPrefix();
  for (const end = performance.now() + longestDeletion; ; await sleep(pause)) {
    try {
      host.execute(addOnlyRoute({ dst, link: hostLink.index, scope: RouteScope.Host }));
      return;
    } catch (error) {
      if (!isKernelError(error, 'EEXIST')) throw error;
    }
    const present = listRoutes(host, { family: dst.family, table: RouteTable.Main }).find((route) =>
      route.dst.equals(dst),
    );
    if (present?.link === hostLink.index) return;
    if (performance.now() < end) continue;
    const name = present?.link === undefined ? undefined : getLink(host, present.link)?.name;
    throw new Error(
      `Address ${address} leads to interface "${name ?? '?'}" of the host already, so it was given away twice. ` +
        `Delete the container behind that interface, or the route with "ip route delete ${dst}", and see to it that no two networks share a range`,
    );
  }
}
