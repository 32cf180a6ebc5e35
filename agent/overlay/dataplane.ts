/** How the kernel is told about the other nodes. */

import type { Address, Family } from '../../lib/ip.ts';
import type { RouteSocket } from '../../lib/kernel/route-socket.ts';
import type { Request } from '../../lib/netlink/message.ts';
import type { NetworkConfig } from './network-config.ts';
import type { Node, Reach, Subnets } from './node.ts';
import type { Uplink } from './uplink.ts';

/** One way to get packets to other nodes. What is already right is not touched. */
export interface Dataplane {
  /** MTU of packets that it carries, in bytes. */
  readonly mtu: number;
  /** How this node is to be reached. */
  readonly reach: Reach;
  /**
   * Sets up everything that leads from this node to the others, and removes what led to nodes that are gone.
   * @param others nodes with the same backend.
   * @returns what the kernel refused, for the operator.
   * @throws NetlinkError where this node itself is at fault.
   */
  apply(own: Subnets, others: readonly Node[]): string[];
}

/** What a backend works with. */
export interface DataplaneOptions {
  readonly socket: RouteSocket;
  readonly config: NetworkConfig;
  readonly uplink: Uplink;
  /** MAC addresses by which others already know this node's VXLAN interfaces. */
  readonly macs: Reach['macs'];
  readonly warn: (message: string) => void;
}

/** The families of a network. */
export function familiesOf({ ranges }: NetworkConfig): Family[] {
  return ranges[6] ? [4, 6] : [4];
}

/** The addresses at which others reach this node, of the families of the network. */
export function publicIpOf({ ranges }: NetworkConfig, { publicIp }: Uplink): Reach['publicIp'] {
  return { 4: publicIp[4], 6: ranges[6] && publicIp[6] };
}

/** A node's subnet of a family, and the address to reach it at. @returns undefined where one is missing. */
export function wayTo(node: Node, family: Family): { subnet: Subnets[4]; via: Address } | undefined {
  const [subnet, via] = [node.subnets[family], node.publicIp[family]];
  return subnet && via && { subnet, via };
}

/** Carries out requests, each regardless of the others' outcome. @returns what the kernel refused. */
export function tryAll(socket: RouteSocket, requests: readonly Request[]): string[] {
  return socket
    .attempt(...requests)
    .flatMap((outcome) => (outcome instanceof Error ? [outcome.message] : []));
}
