/** The numbers by which a network namespace knows others. Source: linux/net_namespace.h. */

import { readdirSync, readlinkSync } from 'node:fs';
import { attributes, layout } from '../netlink/attributes.ts';
import { isKernelError } from '../netlink/libc.ts';
import { i32, struct, u8, u32 } from '../netlink/struct.ts';
import type { RouteSocket } from './route-socket.ts';

const RTM_GETNSID = 90;
const namespaceLayout = layout(
  struct({ family: u8, padding: u8, padding2: u8, padding3: u8 }),
  attributes({ id: [1, i32], pid: [2, u32] }),
);

/**
 * The number that the namespace of a socket has for that of a process.
 * @returns undefined or a negative number when it has none.
 * @throws KernelError, with ESRCH when the process has ended.
 */
export function netnsIdOf(socket: RouteSocket, pid: number): number | undefined {
  const [[reply] = []] = socket.execute({
    action: 'look up the number of a network namespace in another one',
    type: RTM_GETNSID,
    flags: 0,
    payload: namespaceLayout.encode({}, { pid }),
  });
  return reply && namespaceLayout.decode(reply.payload).id;
}

/** The numbers that the namespace of a socket has for those in which processes run. */
export function inhabitedNetnsIds(socket: RouteSocket): Set<number> {
  const ids = new Set<number>();
  for (const pid of inhabitants())
    try {
      const id = netnsIdOf(socket, pid);
      if (id !== undefined && id >= 0) ids.add(id);
    } catch (error) {
      if (!isKernelError(error, 'ESRCH')) throw error;
    }
  return ids;
}

/** A process of each network namespace that has any. */
function inhabitants(): number[] {
  const found = new Map<string, number>();
  for (const name of readdirSync('/proc'))
    if (/^\d+$/.test(name))
      try {
        found.set(readlinkSync(`/proc/${name}/ns/net`), Number(name));
      } catch {
        // It has ended, or may not be looked at.
      }
  return [...found.values()];
}
