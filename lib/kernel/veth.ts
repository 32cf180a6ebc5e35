/** Pairs of virtual Ethernet interfaces: one end in a sandbox, the other on the node. Source: veth(4). */

import { isKernelError } from '../netlink/libc.ts';
import {
  createLink,
  getLink,
  type Link,
  type LinkSettings,
  randomVethName,
  requireLink,
  vethKind,
} from './link.ts';
import type { Netns } from './netns.ts';
import type { RouteSocket } from './route-socket.ts';
import { ensureSysctl } from './sysctl.ts';

const nameTries = 10;

/** Where a pair is made, and what its ends are like. */
export interface VethPair {
  host: RouteSocket;
  /** Settings of the node's end, which is up at once and gets a random name. */
  hostEnd?: LinkSettings;
  sandbox: { netns: Netns; socket: RouteSocket };
  /** Settings of the sandbox's end, which is left down. */
  sandboxEnd: LinkSettings & { name: string };
}

/**
 * Makes a pair with one end in the sandbox.
 * @returns both ends as the kernel has them.
 * @throws Error when the sandbox has an interface of that name already.
 */
export function createVethPair(pair: VethPair): { hostLink: Link; sandboxLink: Link } {
  const { host, sandbox, hostEnd, sandboxEnd } = pair;
  for (let tries = 1; ; tries++) {
    const name = randomVethName();
    try {
      host.execute(
        createLink(vethKind({ ...sandboxEnd, netns: sandbox.netns }), {
          mtu: sandboxEnd.mtu ?? 0,
          ...hostEnd,
          name,
          up: true,
        }),
      );
      // The node's end takes no part in router discovery: a container must not be able to give the node routes.
      ensureSysctl(['ipv6', 'conf', name, 'accept_ra'], '0');
      return { hostLink: requireLink(host, name), sandboxLink: requireLink(sandbox.socket, sandboxEnd.name) };
    } catch (error) {
      if (!isKernelError(error, 'EEXIST')) throw error;
      if (getLink(sandbox.socket, sandboxEnd.name))
        throw new Error(
          `Sandbox "${sandbox.netns.path}" has an interface "${sandboxEnd.name}" already. Run DEL for it first, or use another CNI_IFNAME`,
          { cause: error },
        );
      if (tries === nameTries) throw error;
    }
  }
}
