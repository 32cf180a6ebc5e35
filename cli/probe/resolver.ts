/** The DNS servers that a pod asks. */

import { readdirSync, statSync } from 'node:fs';
import { readRegularFile } from '../../lib/file.ts';
import type { RunningAttachment } from '../doctor/context.ts';

/** Addresses of servers, and who says so. */
export interface Resolvers {
  readonly servers: readonly string[];
  readonly source: string;
}

/**
 * What resolv.conf of a process in the pod's namespace says or, without a process, the result of ADD or the
 * host's own file.
 */
export function resolversOf({ attachment: { netns }, result }: RunningAttachment): Resolvers {
  const pid = processIn(netns);
  const own = pid && nameservers(`/proc/${pid}/root/etc/resolv.conf`);
  if (own && own.length > 0) return { servers: own, source: `resolv.conf of process ${pid} in the pod` };
  const given = result?.dns.nameservers ?? [];
  if (given.length > 0) return { servers: given, source: 'the result of ADD' };
  // Nobody but the host reaches what listens on its loopback interface.
  const host = nameservers('/etc/resolv.conf').filter((one) => !one.startsWith('127.') && one !== '::1');
  return { servers: host, source: "the host's resolv.conf" };
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

/** A process in a network namespace with another root than the host's, as containers have. */
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
