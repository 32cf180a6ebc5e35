/** Creates an interface in the sandbox by one netlink request. */

import {
  createLink,
  deleteLink,
  type Link,
  type LinkKind,
  type LinkSettings,
  requireLink,
  setLink,
} from '../kernel/link.ts';
import { randomVethName } from '../kernel/link-kinds.ts';
import { NetlinkError } from '../netlink/error.ts';
import { isKernelError } from '../netlink/libc.ts';
import type { Call } from './call.ts';
import type { Attached } from './main-plugin.ts';

/**
 * Creates the sandbox's interface, and deletes it again if ADD fails. It is created under a random name,
 * since kernels before 6.13 check whether a name is taken in the namespace of the socket rather than that of
 * the interface, and the host may have an interface of that name.
 * @param from socket of the namespace that its parent is in; by default the sandbox's.
 * @throws Error that says what to do when the kernel lacks the kind.
 */
export function createInterface(
  call: Call,
  kind: LinkKind,
  settings: LinkSettings = {},
  from = call.sandbox.socket,
): Attached {
  const { socket, netns } = call.sandbox;
  const name = randomVethName();
  try {
    from.execute(createLink(kind, { ...settings, name, netns }));
  } catch (error) {
    // If the kernel has not answered, the interface may exist.
    if (!(error instanceof NetlinkError))
      call.undo(`delete interface "${name}", if it exists`, () => void socket.attempt(deleteLink(0, name)));
    if (isKernelError(error, 'EOPNOTSUPP'))
      throw new Error(
        `The kernel has no interfaces of kind "${kind.kind}". Load its module with "modprobe ${kind.kind === 'vlan' ? '8021q' : kind.kind}"`,
        { cause: error },
      );
    throw error;
  }
  let created = { index: 0, name };
  call.undo(
    `delete interface "${call.ifname}"`,
    () => void socket.execute(deleteLink(created.index, created.name)),
  );
  created = requireLink(socket, name);
  socket.execute(setLink(created.index, { name: call.ifname }, name));
  return attachedLink(call, requireLink(socket, created.index));
}

/** What a plugin has made whose result names only the interface in the sandbox. */
export function attachedLink({ netns }: Call, link: Link): Attached {
  return { interfaces: [{ name: link.name, ...(link.mac && { mac: link.mac }), sandbox: netns }], link };
}
