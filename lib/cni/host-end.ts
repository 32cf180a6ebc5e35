/** The host's end of an attachment's veth pair. */

import type { Link } from '../kernel/link.ts';
import { peerOnHost } from '../kernel/link-group.ts';
import type { Call } from './call.ts';
import { findOwnInterface } from './own-interface.ts';

/**
 * Finds the peer of the sandbox's interface.
 * @throws Error when it is not on the host, or the sandbox or its interface is gone.
 */
export function requireHostEnd(call: Call): Link {
  const own = findOwnInterface(call);
  const peer = own && peerOnHost(own.sandbox, own.link);
  const link = peer && call.hostLink(peer.index);
  if (link) return link;
  throw new Error(
    `Interface "${call.ifname}" of the sandbox has no peer on the host. Delete the container and add it again`,
  );
}
