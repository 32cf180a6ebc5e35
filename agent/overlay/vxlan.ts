/**
 * The backend vxlan: an interface that wraps packets to other nodes. Source: flannel's pkg/backend/vxlan,
 * which nodes with flanneld follow.
 */

import type { Family, Prefix } from '../../lib/ip.ts';
import { addAddress, deleteAddress, listAddresses } from '../../lib/kernel/address.ts';
import { createLink, deleteLink, getLink, type Link, requireLink, setLink } from '../../lib/kernel/link.ts';
import {
  deleteForwarding,
  deleteNeighbour,
  listForwarding,
  listNeighbours,
  type Neighbour,
  setForwarding,
  setNeighbour,
} from '../../lib/kernel/neighbour.ts';
import { lookUpRoute } from '../../lib/kernel/route.ts';
import { ensureSysctl, preferSysctl } from '../../lib/kernel/sysctl.ts';
import { type Vxlan, vxlanKind, vxlanSettings } from '../../lib/kernel/vxlan.ts';
import { type Dataplane, type DataplaneOptions, familiesOf, publicIpOf, tryAll, wayTo } from './dataplane.ts';
import type { Node, Subnets } from './node.ts';
import { type NodeRoute, reconcileRoutes } from './routes.ts';

/** Bytes that VXLAN adds to a packet, by the family of the outer header. */
const overhead = { 4: 50, 6: 70 } as const;

/** Makes the interfaces of this node. @throws NetlinkError; Error when the uplink lacks an address. */
export function vxlan(options: DataplaneOptions): Dataplane {
  const { config, uplink } = options;
  const tunnels = familiesOf(config).map((family) => new Tunnel(options, family));
  const macOf = (family: Family) => tunnels.find((one) => one.family === family)?.mac;
  return {
    // A pod has one MTU for both families.
    mtu: Math.min(...tunnels.map(({ mtu }) => mtu)),
    reach: { backend: 'vxlan', publicIp: publicIpOf(config, uplink), macs: { 4: macOf(4), 6: macOf(6) } },
    apply(own, others) {
      return tunnels.flatMap((tunnel) => tunnel.apply(own, others));
    },
  };
}

/** The interface for packets of one family. */
class Tunnel {
  readonly family: Family;
  /** MAC address, which others send frames to. */
  readonly mac: string;
  readonly mtu: number;
  private readonly options: DataplaneOptions;
  private readonly name: string;

  constructor(options: DataplaneOptions, family: Family) {
    const { config, uplink } = options;
    this.options = options;
    this.family = family;
    this.name = `flannel${family === 6 ? '-v6' : ''}.${config.backend.vni}`;
    this.mtu = (config.backend.mtu ?? uplink.link.mtu) - overhead[family];
    this.mac = this.ensureLink(options.macs[family]).mac;
  }

  /** See {@link Dataplane.apply}. */
  apply(own: Subnets, others: readonly Node[]): string[] {
    const { socket, config, uplink } = this.options;
    const { index } = this.ensureLink(this.mac);
    this.ensureAddress(index, own[this.family]!);
    const nodes = others.flatMap((node) => {
      const [way, mac] = [wayTo(node, this.family), node.macs[this.family]];
      return way && mac ? [{ ...way, mac }] : [];
    });
    const direct = nodes.flatMap((node) => {
      const link = this.directLink(node.via);
      return link === undefined ? [] : [{ ...node, link }];
    });
    const isDirect = new Set(direct.map(({ subnet }) => subnet));
    const wrapped = nodes.filter(({ subnet }) => !isDirect.has(subnet));
    const neighbours = wrapped.map(({ subnet, mac }) => ({ address: subnet.address, mac }));
    const forwarding = wrapped.map(({ via, mac }) => ({ address: via, mac }));
    const routes: NodeRoute[] = [
      ...direct.map(({ subnet, via, link }) => ({ dst: subnet, gw: via, link })),
      // The gateway is an address that nobody has: its neighbour entry leads to the node.
      ...wrapped.map(({ subnet }) => ({ dst: subnet, gw: subnet.address, link: index, onlink: true })),
    ];
    const foundNeighbours = listNeighbours(socket, index);
    const foundForwarding = listForwarding(socket, index);
    // First add what packets on new routes need; last, remove what those on old routes needed.
    const problems = tryAll(socket, [
      ...without(neighbours, foundNeighbours).map((one) => setNeighbour(index, one, this.name)),
      ...without(forwarding, foundForwarding).map((one) => setForwarding(index, one, this.name)),
    ]);
    const links = [...new Set([index, uplink.link.index, ...direct.map(({ link }) => link)])];
    problems.push(...reconcileRoutes(socket, this.family, routes, config.ranges[this.family]!, links));
    const addresses = new Set(neighbours.map(({ address }) => `${address}`));
    const macs = new Set(forwarding.map(({ mac }) => mac));
    tryAll(socket, [
      ...foundNeighbours
        .filter(({ address }) => !addresses.has(`${address}`))
        .map((one) => deleteNeighbour(index, one, this.name)),
      ...foundForwarding
        .filter(({ mac }) => !macs.has(mac))
        .map((one) => deleteForwarding(index, one, this.name)),
    ]);
    return problems;
  }

  /**
   * The interface by which a node can be reached without VXLAN.
   * @returns undefined when there is none, or direct routing is off.
   */
  private directLink(via: Prefix['address']): number | undefined {
    if (!this.options.config.backend.directRouting) return undefined;
    try {
      const route = lookUpRoute(this.options.socket, via);
      return route && !route.gw ? route.link : undefined;
    } catch {
      return undefined;
    }
  }

  /** Makes the interface, unless it is there. */
  private ensureLink(mac: string | undefined): Link {
    const { socket, config, uplink, warn } = this.options;
    const local = uplink.local[this.family];
    if (!local)
      throw new Error(
        `Interface "${uplink.link.name}" has no IPv${this.family} address, which a network of that family needs. Give it one, or set "iface"`,
      );
    const { vni, port, learning, gbp } = config.backend;
    const wanted: Vxlan = { vni, parent: uplink.link.index, local, port, learning, gbp };
    let link = getLink(socket, this.name);
    if (link && !isSame(vxlanSettings(link), wanted)) {
      warn(`Interface "${this.name}" has other settings than the network. It is created again`);
      socket.execute(deleteLink(link.index, this.name));
      link = undefined;
    }
    if (!link) {
      socket.execute(createLink(vxlanKind(wanted), { name: this.name, mtu: this.mtu, ...(mac && { mac }) }));
      link = requireLink(socket, this.name);
    }
    preferSysctl(['ipv6', 'conf', this.name, 'accept_ra'], '0', warn);
    if (!link.up || link.mtu !== this.mtu || (mac && link.mac !== mac)) {
      socket.execute(setLink(link.index, { up: true, mtu: this.mtu, ...(mac && { mac }) }, this.name));
      link = requireLink(socket, this.name);
    }
    return link;
  }

  /** Gives the interface the first address of the node's subnet, the source of packets of the node itself. */
  private ensureAddress(index: number, subnet: Prefix): void {
    const { socket, config } = this.options;
    const { network } = config.ranges[this.family]!;
    const wanted = subnet.address.toPrefix();
    const found = listAddresses(socket, index, this.family).map(({ prefix }) => prefix);
    const outdated = found.filter((one) => network.contains(one.address) && !one.equals(wanted));
    if (this.family === 6) ensureSysctl(['ipv6', 'conf', this.name, 'disable_ipv6'], '0');
    socket.execute(
      ...outdated.map((one) => deleteAddress(index, one, this.name)),
      ...(found.some((one) => one.equals(wanted))
        ? []
        : [addAddress(index, wanted, { noDad: true, label: this.name })]),
    );
  }
}

function isSame(found: Vxlan | undefined, wanted: Vxlan): boolean {
  return (
    wanted.local.equals(found?.local) &&
    (['vni', 'parent', 'port', 'gbp', 'learning'] as const).every((key) => found?.[key] === wanted[key])
  );
}

function without(all: readonly Neighbour[], found: readonly Neighbour[]): Neighbour[] {
  const keyOf = ({ address, mac }: Neighbour) => `${address} ${mac}`;
  const present = new Set(found.map(keyOf));
  return all.filter((one) => !present.has(keyOf(one)));
}
