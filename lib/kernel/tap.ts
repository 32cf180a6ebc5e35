/** TAP interfaces, whose frames a program reads and writes. Source: linux/if_tun.h, the kernel's tuntap.rst. */

import { closeSync, openSync } from 'node:fs';
import { libc } from '../netlink/libc.ts';

const TUNSETIFF = 0x400454ca;
const TUNSETPERSIST = 0x400454cb;
const TUNSETOWNER = 0x400454cc;
const TUNSETGROUP = 0x400454ce;
const IFF_TAP = 0x0002;
const IFF_MULTI_QUEUE = 0x0100;
const IFF_NO_PI = 0x1000;
const IFF_VNET_HDR = 0x4000;

/** How a TAP interface is made. */
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

/** Makes a TAP interface that stays, in the namespace that the thread is in. @throws KernelError */
export function createTap({ name, multiQueue, vnetHeader, owner, group }: TapSettings): void {
  let fd: number;
  try {
    fd = openSync('/dev/net/tun', 'r+');
  } catch (error) {
    throw new Error('Cannot open "/dev/net/tun". Load the module with "modprobe tun"', { cause: error });
  }
  try {
    const request = new Uint8Array(40);
    request.set(Buffer.from(name));
    const flags = IFF_TAP | IFF_NO_PI | (multiQueue ? IFF_MULTI_QUEUE : 0) | (vnetHeader ? IFF_VNET_HDR : 0);
    new DataView(request.buffer).setUint16(16, flags, true);
    const action = (what: string) => `${what} TAP interface "${name}"`;
    libc(action('create'), 'ioctl', fd, TUNSETIFF, request);
    if (owner !== undefined) libc(action('set the owner of'), 'ioctlValue', fd, TUNSETOWNER, owner);
    if (group !== undefined) libc(action('set the group of'), 'ioctlValue', fd, TUNSETGROUP, group);
    libc(action('keep'), 'ioctlValue', fd, TUNSETPERSIST, 1);
  } finally {
    closeSync(fd);
  }
}
