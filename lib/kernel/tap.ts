/**
 * TAP interfaces, whose frames a program reads and writes. Source: linux/if_tun.h, the kernel's tuntap.rst.
 */

import { closeSync, openSync } from 'node:fs';
import { libc } from '../netlink/libc.ts';
import { byteArray, struct, u16 } from '../netlink/struct.ts';

const TUNSETIFF = 0x400454ca;
const TUNSETPERSIST = 0x400454cb;
const TUNSETOWNER = 0x400454cc;
const TUNSETGROUP = 0x400454ce;
const IFF_TAP = 0x0002;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;
/** Refuses an existing interface of that name, instead of opening it. */
const IFF_TUN_EXCL = 0x8000;

/** struct ifreq as far as it is used. */
const ifreq = struct({ name: byteArray(16), flags: u16, rest: byteArray(22) });

/** How a TAP interface is created. */
export interface TapSettings {
  name: string;
  multiQueue?: boolean;
  /** Frames come with a virtio header. */
  vnetHeader?: boolean;
  /** User ID that may open it, besides root. */
  owner?: number | undefined;
  /** Group ID that may open it. */
  group?: number | undefined;
}

/**
 * Creates a TAP interface that outlives the process, in the namespace that the thread is in.
 * @throws KernelError, EBUSY where the namespace has an interface of that name.
 */
export function createTap({ name, multiQueue, vnetHeader, owner, group }: TapSettings): void {
  let fd: number;
  try {
    fd = openSync('/dev/net/tun', 'r+');
  } catch (error) {
    throw new Error('Cannot open "/dev/net/tun". Load the module with "modprobe tun"', { cause: error });
  }
  try {
    const flags =
      IFF_TAP |
      IFF_NO_PI |
      IFF_TUN_EXCL |
      (multiQueue ? IFF_MULTI_QUEUE : 0) |
      (vnetHeader ? IFF_VNET_HDR : 0);
    const request = ifreq.encode({ name: Buffer.from(name), flags });
    const action = (what: string) => `${what} TAP interface "${name}"`;
    libc(action('create'), 'ioctl', fd, TUNSETIFF, request);
    if (owner !== undefined) libc(action('set the owner of'), 'ioctlValue', fd, TUNSETOWNER, owner);
    if (group !== undefined) libc(action('set the group of'), 'ioctlValue', fd, TUNSETGROUP, group);
    libc(action('keep'), 'ioctlValue', fd, TUNSETPERSIST, 1);
  } finally {
    closeSync(fd);
  }
}
