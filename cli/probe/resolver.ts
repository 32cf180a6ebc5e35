/** The DNS servers that a pod asks. */

import { readdirSync, statSync } from 'node:fs';
import { readRegularFile } from '../../lib/file.ts';
import type { RunningAttachment } from '../inventory/running.ts';

/** Addresses of servers, and who says so. */
export interface Resolvers {
  readonly servers: readonly string[];
  readonly source: string;
}

/** What resolv.conf of a process in the pod's namespace says or, without one, the result of ADD. */
export function resolversOf({ attachment: { netns }, result }: RunningAttachment): Resolvers {
  const pid = processIn(netns);
  const own = pid && nameservers(`/proc/${pid}/root/etc/resolv.conf`);
  if (own && own.length > 0) return { servers: own, source: `resolv.conf of process ${pid}` };
  return { servers: result?.dns.nameservers ?? [], source: 'the result of ADD' };
}

function nameservers(file: string): string[] {
  try {
    return [
      ...readRegularFile(file, { followLink: true }).matchAll(/^\s*nameserver\s+([\d.a-fA-F:]+)/gm),
    ].map(([, ip]) => ip!);
  } catch {
    return [];
  }
}

/** A process in a network namespace with another mount namespace than the host's, as containers have. */
function processIn(netns: string): string | undefined {
  const namespace = statSync(netns, { throwIfNoEntry: false });
  if (!namespace) return undefined;
  const host = statSync('/proc/self/ns/mnt');
  return readdirSync('/proc').find((pid) => {
    if (!/^\d+$/.test(pid)) return false;
    try {
      const [net, mnt] = ['net', 'mnt'].map((kind) => statSync(`/proc/${pid}/ns/${kind}`));
      return net!.ino === namespace.ino && net!.dev === namespace.dev && mnt!.ino !== host.ino;
    } catch {
      return false; // It has ended meanwhile.
    }
  });
}
