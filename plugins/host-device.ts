/** host-device: moves an interface of the node into the sandbox, and back. */

import { chooseDns } from '../lib/cni/config.ts';
import { ipamAdd, ipamCheck, ipamDel, ipamGc, ipamStatus } from '../lib/cni/delegate.ts';
import { type Call, type Plugin, requirePrevResult } from '../lib/cni/plugin.ts';
import { emptyResult, type Result } from '../lib/cni/result.ts';
import {
  checkInterface,
  configureInterface,
  openSandbox,
  openSandboxIfPresent,
  type Sandbox,
} from '../lib/cni/sandbox.ts';
import { type Infer, object, string } from '../lib/cni/schema.ts';
import { runAll } from '../lib/cni/steps.ts';
import { checkDeviceSpec, type DeviceSpec, findDevice, isUserSpaceDriven } from '../lib/kernel/device.ts';
import { getLink, type Link, listLinks, requireLink, setLink } from '../lib/kernel/link.ts';
import { Netns } from '../lib/kernel/netns.ts';
import { openRouteSocket } from '../lib/kernel/route-socket.ts';

const config = object({
  device: string({ description: 'Name of the interface.' }),
  hwaddr: string({ description: 'MAC address of the interface.' }),
  kernelpath: string({ description: 'Directory of the device below /sys/devices.' }),
  pciBusID: string({ description: 'PCI address of the device, such as "0000:00:1f.6".' }),
  runtimeConfig: object({ deviceID: string() }),
});

type HostDeviceCall = Call<Infer<typeof config>>;

export const plugin: Plugin<Infer<typeof config>> = {
  name: 'host-device',
  summary: 'Moves an interface of the node into a sandbox, and back.',
  config,

  async add(call) {
    const spec = specOf(call);
    checkDeviceSpec(spec);
    const sandbox = openSandbox(call);
    const userSpace = isUserSpaceDriven(spec);
    const link = userSpace ? undefined : moveIn(call, spec, sandbox);
    const addresses = call.config.ipam?.type ? await ipamAdd(call) : emptyResult();
    const result: Result = {
      interfaces: [
        {
          name: call.ifname,
          ...(link?.mac && { mac: link.mac }),
          sandbox: call.netns,
          ...(userSpace && spec.pciBusID && { pciID: spec.pciBusID }),
        },
      ],
      ips: addresses.ips.map((ip) => ({ ...ip, interface: 0 })),
      routes: addresses.routes,
      dns: chooseDns(call.config.dns, addresses.dns),
    };
    if (link && result.ips.length > 0) configureInterface(sandbox, call.ifname, result);
    return result;
  },

  async del(call) {
    await runAll(
      () => ipamDel(call),
      () => moveOut(call),
    );
  },

  async check(call) {
    await ipamCheck(call);
    requirePrevResult(call);
    if (!isUserSpaceDriven(specOf(call))) checkInterface(call, '');
  },

  async status(call) {
    // A device that is in a container is in order, so that only the configuration can be wrong.
    checkDeviceSpec(specOf(call));
    await ipamStatus(call);
  },

  gc: ipamGc,
};

function specOf({ config }: HostDeviceCall): DeviceSpec {
  const { device, hwaddr, kernelpath, pciBusID, runtimeConfig } = config;
  const deviceID = runtimeConfig?.deviceID;
  return deviceID ? { pciBusID: deviceID } : { device, hwaddr, kernelpath, pciBusID };
}

/** Takes the device into the sandbox, and up. Its alias there says what it was called on the node. */
function moveIn(call: HostDeviceCall, spec: DeviceSpec, sandbox: Sandbox): Link {
  using host = openRouteSocket();
  const device = findDevice(host, spec);
  const known = Object.values(spec).find(Boolean);
  if (!device)
    throw new Error(
      `The node has no interface for device "${known}". Another container may have it; else correct the configuration`,
    );
  if (device.name === 'lo') throw new Error('"lo" cannot leave the node. Name another device');
  if (getLink(sandbox.socket, call.ifname))
    throw new Error(
      `Sandbox "${call.netns}" has an interface "${call.ifname}" already. Run DEL for it first, or use another CNI_IFNAME`,
    );
  call.undo(() => {
    using home = Netns.current();
    const moved = getLink(sandbox.socket, call.ifname);
    if (moved?.alias === device.name) move(moved, sandbox.netns, home, device.name, device.alias);
  });
  using node = Netns.current();
  move(device, node, sandbox.netns, call.ifname, device.name);
  const link = getLink(sandbox.socket, call.ifname)!;
  sandbox.socket.execute(setLink(link.index, { up: true }, call.ifname));
  return link;
}

/** Gives the device back to the node, under the name that it had there. */
function moveOut(call: HostDeviceCall): void {
  const sandbox = openSandboxIfPresent(call);
  const link = sandbox && getLink(sandbox.socket, call.ifname);
  using node = Netns.current();
  if (sandbox && link) {
    const name = link.alias || call.config.device || call.ifname;
    move(link, sandbox.netns, node, name, '');
    return;
  }
  // When its namespace died, the kernel gave it back, but with the name it had in the container.
  using host = openRouteSocket();
  const spec = specOf(call);
  const back = spec.device
    ? listLinks(host).find(({ alias, name }) => alias === spec.device && name !== alias)
    : findDevice(host, spec);
  if (!back?.alias || back.alias === back.name || getLink(host, back.alias)) return;
  host.execute(
    setLink(back.index, { up: false }, back.name),
    setLink(back.index, { name: back.alias, alias: '' }, back.name),
  );
}

/**
 * Moves an interface to another namespace under another name, in one step: while it moves, the kernel takes the new name at once where
 * the old one is in use (__dev_change_net_namespace in net/core/dev.c). When the new one is in use as well, it goes back.
 */
function move(link: Link, from: Netns, to: Netns, name: string, alias: string): void {
  using source = openRouteSocket(from);
  try {
    source.execute(
      setLink(link.index, { up: false }, link.name),
      setLink(link.index, { netns: to, name, alias }, link.name),
    );
  } catch (error) {
    using target = openRouteSocket(to);
    const astray = getLink(source, link.name) ? undefined : getLink(target, link.name);
    if (astray)
      target.execute(setLink(astray.index, { netns: from, name: link.name, alias: link.alias }, link.name));
    if (link.up) source.execute(setLink(requireLink(source, link.name).index, { up: true }, link.name));
    throw error;
  }
}
