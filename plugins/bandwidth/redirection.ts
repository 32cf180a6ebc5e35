/** Redirects what a container sends to the interface that limits it. */

import type { Link } from '../../lib/kernel/link.ts';
import type { RouteSocket } from '../../lib/kernel/route-socket.ts';
import {
  addIngress,
  deleteFilter,
  deleteIngress,
  ingressRedirections,
  redirectIngress,
} from '../../lib/kernel/traffic-control.ts';
import { isKernelError } from '../../lib/netlink/libc.ts';
import type { IfbOwner } from './ifb.ts';

/**
 * Has what comes in by the host's end leave by the interface that limits it. Redirections to deleted
 * interfaces are removed: they stay, drop everything, and would come first.
 */
export function redirect(owner: IfbOwner, veth: Link, ifb: Link): void {
  const { host } = owner;
  try {
    host.execute(addIngress(veth.index, veth.name));
    owner.undo(
      `remove the ingress queue of "${veth.name}"`,
      () => void host.execute(deleteIngress(veth.index, veth.name)),
    );
  } catch (error) {
    // Others filter there, too, say with a "clsact" qdisc.
    if (!isKernelError(error, 'EEXIST')) throw error;
  }
  const { dead = [], living = [] } = Object.groupBy(
    ingressRedirections(host, veth.index).filter(({ takesAll }) => takesAll),
    ({ to }) => (to === 0 ? 'dead' : 'living'),
  );
  host.execute(...dead.map((filter) => deleteFilter(filter, veth.name)));
  if (living.some(({ to }) => to === ifb.index)) return;
  const [added] = host.execute(redirectIngress(veth.index, ifb.index, veth.name));
  for (const filter of added!)
    owner.undo(
      `remove the redirection of "${veth.name}"`,
      () => void host.execute(deleteFilter(filter, veth.name)),
    );
}

/** As {@link redirect}. @throws Error when somebody else's redirection comes first. */
export function redirectAgain(owner: IfbOwner, veth: Link, ifb: Link): void {
  redirect(owner, veth, ifb);
  if (!isRedirected(owner.host, veth, ifb))
    throw new Error(
      `Another filter takes all that comes in by "${veth.name}" before it gets to the limit. Look for it with "tc filter show dev ${veth.name} ingress", and remove it`,
    );
}

/** Whether what comes in by the host's end reaches the interface that limits it before another takes it. */
export function isRedirected(host: RouteSocket, veth: Link, ifb: Link): boolean {
  return ingressRedirections(host, veth.index).find(({ takesAll }) => takesAll)?.to === ifb.index;
}
