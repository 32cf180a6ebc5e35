/** What is wrong with a container's interface, seen without any plugin. */

import { listAddresses } from '../lib/kernel/address.ts';
import { getLink } from '../lib/kernel/link.ts';
import { openSandbox } from '../lib/kernel/sandbox.ts';
import { describeError } from './errors.ts';
import type { HostAttachment } from './inventory.ts';

/**
 * Looks whether an attachment's interface is there, up, and has its addresses.
 * @returns what is amiss; nothing when it is in order, or nobody recorded the namespace.
 */
export function interfaceProblems({ netns, ifname, ips }: HostAttachment): string[] {
  if (netns === '') return [];
  try {
    const { netns: namespace, socket } = openSandbox(netns);
    try {
      const link = getLink(socket, ifname);
      if (!link) return [`interface "${ifname}" is missing from the container`];
      const present = new Set(listAddresses(socket, link.index).map(({ prefix }) => `${prefix.address}`));
      const missing = ips.filter((ip) => !present.has(ip));
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
