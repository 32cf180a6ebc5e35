import { mkdirSync, mkdtempSync, rmSync, symlinkSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import test from 'ava';
import {
  checkDeviceSpec,
  type DeviceSpec,
  findDevice,
  isUserSpaceDriven,
} from '../../../lib/kernel/device.ts';
import type { RouteSocket } from '../../../lib/kernel/route-socket.ts';
import type { Request } from '../../../lib/netlink/message.ts';

/** Name of the interface that is looked up for a device. */
function interfaceInSysfs(spec: DeviceSpec, sysfs: string): string | undefined {
  let action: string | undefined;
  const execute = (request: Request) => {
    action = request.action;
    return [[]];
  };
  findDevice({ execute } as unknown as RouteSocket, spec, sysfs);
  return action && /^look up interface "(.*)"$/.exec(action)?.[1];
}

test('finds interfaces where sysfs has them: on PCI, behind virtio, on the auxiliary bus, by path', (t) => {
  const sysfs = mkdtempSync(join(tmpdir(), 'sysfs-'));
  t.teardown(() => rmSync(sysfs, { recursive: true }));
  const make = (path: string) => mkdirSync(join(sysfs, path), { recursive: true });
  make('bus/pci/devices/0000:00:01.0/net/eth1');
  make('bus/pci/devices/0000:00:02.0/virtio1/net/eth2');
  make('bus/pci/devices/0000:00:03.0');
  make('bus/auxiliary/devices/mlx5_core.sf.4/net/eth4');
  make('devices/pci0000:00/0000:00:05.0/net/eth5');
  make('bus/pci/drivers/vfio-pci');
  symlinkSync('../../drivers/vfio-pci', join(sysfs, 'bus/pci/devices/0000:00:03.0/driver'));
  t.is(interfaceInSysfs({ pciBusID: '0000:00:01.0' }, sysfs), 'eth1');
  t.is(interfaceInSysfs({ pciBusID: '0000:00:02.0' }, sysfs), 'eth2');
  t.is(interfaceInSysfs({ pciBusID: '0000:00:03.0' }, sysfs), undefined);
  t.is(interfaceInSysfs({ pciBusID: '0000:00:09.0' }, sysfs), undefined);
  t.is(interfaceInSysfs({ pciBusID: 'mlx5_core.sf.4' }, sysfs), 'eth4');
  t.is(interfaceInSysfs({ kernelpath: '/sys/devices/pci0000:00/0000:00:05.0' }, sysfs), 'eth5');
  t.true(isUserSpaceDriven({ pciBusID: '0000:00:03.0' }, sysfs));
  t.false(isUserSpaceDriven({ pciBusID: '0000:00:01.0' }, sysfs));
});

test('refuses what leads elsewhere', (t) => {
  const message = (spec: object) => t.throws(() => checkDeviceSpec(spec))?.message ?? '';
  t.regex(message({}), /No device is named/);
  t.regex(message({ kernelpath: '/etc' }), /must be below/);
  t.regex(message({ kernelpath: '/sys/devices/../../etc' }), /must be below/);
  t.regex(message({ pciBusID: '../../..' }), /must be like/);
  t.regex(message({ hwaddr: 'nonsense' }), /not a valid MAC address/);
});
