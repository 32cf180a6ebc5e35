/** Finding a device of the host by what is known about it. Source: sysfs(5). */

import { existsSync, readdirSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { namesIn } from '../directory.ts';
import { getLink, type Link, listLinks } from './link.ts';
import { normalizeMac, parseHardwareAddress } from './mac.ts';
import type { RouteSocket } from './route-socket.ts';

/** What may be known about a device; the first one set counts, in this order. */
export interface DeviceSpec {
  /** Name of its interface. */
  device?: string | undefined;
  /** MAC address. */
  hwaddr?: string | undefined;
  /** Directory below /sys/devices. */
  kernelpath?: string | undefined;
  /** PCI address such as "0000:00:1f.6", or the name of a device on the auxiliary bus. */
  pciBusID?: string | undefined;
}

/** Drivers that hand a device to a program in user space, so that the kernel has no interface for it. */
const userSpaceDrivers = ['vfio-pci', 'uio_pci_generic', 'igb_uio'];

/** @throws Error that says which key is wrong, before anything is looked up. */
export function checkDeviceSpec({ device, hwaddr, kernelpath, pciBusID }: DeviceSpec): void {
  if (!device && !hwaddr && !kernelpath && !pciBusID)
    throw new Error('No device is named. Set "device", "hwaddr", "kernelpath" or "pciBusID"');
  if (hwaddr && !parseHardwareAddress(hwaddr))
    throw new Error(
      `"hwaddr" is "${hwaddr}", which is not a valid MAC address. Write it like "0a:58:0a:01:00:05"`,
    );
  if (kernelpath && (!kernelpath.startsWith('/sys/devices/') || kernelpath.split('/').includes('..')))
    throw new Error(`"kernelpath" is "${kernelpath}", but it must be below "/sys/devices/"`);
  if (pciBusID && !/^[0-9A-Za-z_.:-]+$/.test(pciBusID))
    throw new Error(`"pciBusID" is "${pciBusID}", but it must be like "0000:00:1f.6"`);
}

/** True when a program in user space drives the device. @param sysfs where sysfs is mounted. */
export function isUserSpaceDriven({ pciBusID }: DeviceSpec, sysfs = '/sys'): boolean {
  if (!pciBusID) return false;
  try {
    return userSpaceDrivers.includes(basename(readlinkSync(`${sysfs}/bus/pci/devices/${pciBusID}/driver`)));
  } catch {
    return false;
  }
}

/**
 * The interface of a device in the socket's namespace, which must be the thread's own.
 * @returns undefined when there is none.
 */
export function findDevice(socket: RouteSocket, spec: DeviceSpec, sysfs = '/sys'): Link | undefined {
  const { device, hwaddr } = spec;
  if (device) return getLink(socket, device);
  if (hwaddr) {
    const mac = normalizeMac(hwaddr);
    return listLinks(socket).find((link) => link.mac === mac);
  }
  if (!spec.kernelpath && !spec.pciBusID) return undefined;
  const name = interfaceInSysfs(spec, sysfs);
  return name === undefined ? undefined : getLink(socket, name);
}

/** Name of the interface that sysfs has for a device. */
function interfaceInSysfs({ kernelpath, pciBusID }: DeviceSpec, sysfs: string): string | undefined {
  if (kernelpath) return namesIn(`${sysfs}${kernelpath.slice('/sys'.length)}/net`)[0];
  const pci = `${sysfs}/bus/pci/devices/${pciBusID}`;
  if (existsSync(pci)) {
    const virtio = readdirSync(pci).find((entry) => entry.startsWith('virtio'));
    return namesIn(`${pci}/net`)[0] ?? (virtio && namesIn(`${pci}/${virtio}/net`)[0]);
  }
  return namesIn(`${sysfs}/bus/auxiliary/devices/${pciBusID}/net`)[0];
}
