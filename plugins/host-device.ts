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
import { getLink, type Link, listLinks, setLink } from '../lib/kernel/link.ts';
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
    if (link && result.ips.length > 0) await configureInterface(sandbox, call.ifname, result);
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
 * Moves an interface to another namespace under another name. It is renamed in a namespace of its own on the way, as either name
 * may be taken at the other end. When a step fails, it goes back to where it was.
 */
function move(link: Link, from: Netns, to: Netns, name: string, alias: string): void {
  using between = Netns.create();
  using source = openRouteSocket(from);
  using middle = openRouteSocket(between);
  source.execute(
    setLink(link.index, { up: false }, link.name),
    setLink(link.index, { netns: between }, link.name),
  );
  const found = listLinks(middle).find(({ name: one }) => one === link.name)!;
  try {
    middle.execute(
      setLink(found.index, { name, alias }, link.name),
      setLink(found.index, { netns: to }, name),
    );
  } catch (error) {
    middle.execute(
      setLink(found.index, { name: link.name, alias: link.alias }, name),
      setLink(found.index, { netns: from }, link.name),
    );
    if (link.up) source.execute(setLink(getLink(source, link.name)!.index, { up: true }, link.name));
    throw error;
  }
}
