/** What is wrong inside a container, as seen without any plugin. */

import { checkRoutes } from '../lib/cni/interface-check.ts';
import type { Result } from '../lib/cni/result.ts';
import { listAddresses } from '../lib/kernel/address.ts';
import { getLink } from '../lib/kernel/link.ts';
import { openSandbox } from '../lib/kernel/sandbox.ts';
import { describeError } from './errors.ts';
import type { HostAttachment } from './inventory.ts';

/**
 * Checks that an attachment's interface exists, is up and has its addresses, and that its routes exist.
 * @param result of ADD; without it, routes are not checked.
 * @returns what is amiss; nothing when all is in order, or nobody recorded the namespace.
 */
export function sandboxProblems(attachment: HostAttachment, result?: Result): string[] {
  const { netns, ifname, ips } = attachment;
  if (netns === '') return [];
  try {
    const sandbox = openSandbox(netns);
    const { netns: namespace, socket } = sandbox;
    try {
      const link = getLink(socket, ifname);
      if (!link) return [`interface "${ifname}" is missing from the container`];
      const present = new Set(listAddresses(socket, link.index).map(({ prefix }) => `${prefix.address}`));
      const missing = ips.filter((ip) => !present.has(ip));
      if (result) checkRoutes(attachment, sandbox, result);
      return [
        ...(link.up ? [] : [`interface "${ifname}" is down`]),
        ...(missing.length > 0 ? [`interface "${ifname}" has no address ${missing.join(', ')}`] : []),
      ];
    } finally {
      socket.close();
      namespace.close();
    }
  } catch (error) {
    return [describeError(error)];
  }
}
