/** veth pairs: one end in a sandbox, the other on the host. Source: veth(4). */

import { NetlinkError } from '../netlink/error.ts';
import { isKernelError } from '../netlink/libc.ts';
import { createLink, deleteLink, getLink, type Link, type LinkSettings, requireLink } from './link.ts';
import { randomVethName, vethKind } from './link-kinds.ts';
import type { RouteSocket } from './route-socket.ts';
import type { Sandbox } from './sandbox.ts';
import { preferSysctl } from './sysctl.ts';

const nameTries = 10;

/** Where a pair is created, and for whom. */
export interface VethOwner {
  readonly host: RouteSocket;
  readonly sandbox: Sandbox;
  /** Told how to delete the pair as soon as it exists. */
  undo(what: string, step: () => void): void;
  warn(message: string): void;
}

/** Both ends of a pair as the kernel has them. */
export interface VethPair {
  hostLink: Link;
  sandboxLink: Link;
}

/**
 * Creates a pair with one end in the sandbox.
 * @param hostEnd settings of the host's end, which is up at once and gets a random name.
 * @param sandboxEnd settings of the sandbox's end, which is left down.
 * @throws Error when the sandbox has an interface of that name already.
 */
export function createVethPair(
  owner: VethOwner,
  sandboxEnd: LinkSettings & { name: string },
  hostEnd: LinkSettings = {},
): VethPair {
  const { host, sandbox } = owner;
  const name = createNamed(owner, sandboxEnd, hostEnd);
  owner.undo(`delete interface "${name}"`, () => void host.execute(deleteLink(0, name)));
  // The host's end takes no part in router discovery: a container must not be able to give the host routes.
  preferSysctl(['ipv6', 'conf', name, 'accept_ra'], '0', (message) => owner.warn(message));
  return { hostLink: requireLink(host, name), sandboxLink: requireLink(sandbox.socket, sandboxEnd.name) };
}

/** @returns the random name that the host's end got. */
function createNamed(
  owner: VethOwner,
  sandboxEnd: LinkSettings & { name: string },
  hostEnd: LinkSettings,
): string {
  const { host, sandbox } = owner;
  for (let tries = 1; ; tries++) {
    const name = randomVethName();
    const peer = vethKind({ ...sandboxEnd, netns: sandbox.netns });
    try {
      host.execute(createLink(peer, { mtu: sandboxEnd.mtu ?? 0, ...hostEnd, name, up: true }));
      return name;
    } catch (error) {
      // If the kernel has not answered, the pair may exist.
      if (!(error instanceof NetlinkError))
        owner.undo(`delete interface "${name}", if it exists`, () => void host.attempt(deleteLink(0, name)));
      if (!isKernelError(error, 'EEXIST')) throw error;
      if (getLink(sandbox.socket, sandboxEnd.name))
        throw new Error(
          `Sandbox "${sandbox.netns.path}" already has an interface "${sandboxEnd.name}". Run DEL for it first, or use another CNI_IFNAME`,
          { cause: error },
        );
      if (tries === nameTries) throw error;
    }
  }
}
