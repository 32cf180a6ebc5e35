/** host-device: moves an interface of the host into the sandbox, and back. */

import type { Call } from '../lib/cni/call.ts';
import type { NetConf } from '../lib/cni/config.ts';
import { attachedLink } from '../lib/cni/create-interface.ts';
import { ifnameProblem } from '../lib/cni/invocation.ts';
import { defineMainPlugin } from '../lib/cni/main-plugin.ts';
import { findInterfaceToRemove, type OwnInterface } from '../lib/cni/own-interface.ts';
import { type InferShape, object, string } from '../lib/cni/schema.ts';
import { deleteAlternativeName } from '../lib/kernel/alternative-name.ts';
import { checkDeviceSpec, type DeviceSpec, findDevice, isUserSpaceDriven } from '../lib/kernel/device.ts';
import { getLink, type Link, listLinks, requireLink, setLink } from '../lib/kernel/link.ts';
import { Netns } from '../lib/kernel/netns.ts';
import { openRouteSocket, type RouteSocket } from '../lib/kernel/route-socket.ts';

const config = {
  device: string({ description: 'Name of the interface.' }),
  hwaddr: string({ description: 'MAC address of the interface.' }),
  kernelpath: string({ description: 'Directory of the device below /sys/devices.' }),
  pciBusID: string({ description: 'PCI address of the device, such as "0000:00:1f.6".' }),
  runtimeConfig: object({ deviceID: string() }),
};

type Config = InferShape<typeof config> & Pick<NetConf, 'capabilities'>;
type HostDeviceCall = Call<Config>;

export const plugin = defineMainPlugin({
  name: 'host-device',
  summary: 'Moves an interface of the host into a sandbox, and back.',
  kind: '',
  config,

  explain: ({ device, hwaddr, pciBusID, kernelpath }) => [
    `Moves ${device || hwaddr || pciBusID || kernelpath || 'the device that the runtime names'} of the host into the container`,
  ],

  validate(given) {
    const spec = specOf(given);
    // Only ADD is told which device it is.
    const isNamedLater = given.capabilities?.deviceID && !Object.values(spec).some(Boolean);
    if (!isNamedLater) checkDeviceSpec(spec);
  },

  options: () => ({ announce: false }),

  create(call) {
    const spec = specOf(call.config);
    checkDeviceSpec(spec);
    if (!isUserSpaceDriven(spec)) return attachedLink(call, moveToSandbox(call, spec));
    const { ifname: name, netns: sandbox } = call;
    return {
      interfaces: [{ name, sandbox, ...(spec.pciBusID && { pciID: spec.pciBusID }) }],
      link: undefined,
    };
  },

  remove: returnToHost,

  gc({ host, config, validAttachments }) {
    const { device = '' } = specOf(config);
    // Whoever had the device got no DEL: the next ADD must find it by its name; by other keys it is found
    // anyway. While there is an attachment, that one has it, and what bears its name as an alias is another.
    if (validAttachments.length > 0 || ifnameProblem(device) || getLink(host, device)) return;
    const back = listLinks(host).find(
      ({ alias, name, up }) => !up && alias === device && /^(?:dev|eth|net)\d+$/.test(name),
    );
    if (back) giveNameBack(host, back);
  },

  // There is no "status" here: a device in a container is no fault, so only the configuration can be wrong.
  hasLink: ({ config }) => !isUserSpaceDriven(specOf(config)),
});

/** As in the reference plugin, the runtime's device takes the place of "pciBusID" alone. */
function specOf({ device, hwaddr, kernelpath, pciBusID, runtimeConfig }: Config): DeviceSpec {
  return { device, hwaddr, kernelpath, pciBusID: runtimeConfig?.deviceID || pciBusID };
}

/** Moves the device to the sandbox. Its alias there says what it was called on the host. */
function moveToSandbox(call: HostDeviceCall, spec: DeviceSpec): Link {
  const { host, sandbox, ifname } = call;
  const device = findDevice(host, spec);
  const wanted = Object.values(spec).find(Boolean);
  if (!device)
    throw new Error(
      `The host has no interface for device "${wanted}". Another container may have it; else correct the configuration`,
    );
  if (device.name === 'lo') throw new Error('"lo" cannot leave the host. Name another device');
  using home = Netns.current();
  move(device, home, sandbox.netns, ifname, device.name);
  call.undo(`move device "${device.name}" back to the host`, () => {
    using back = Netns.current();
    const moved = getLink(sandbox.socket, ifname);
    if (moved?.alias !== device.name) return;
    move(moved, sandbox.netns, back, device.name, device.alias);
    if (device.up) host.execute(setLink(requireLink(host, device.name).index, { up: true }, device.name));
  });
  return requireLink(sandbox.socket, ifname);
}

/** Gives the device back to the host, under the name that it had there if that is free. */
function returnToHost(call: HostDeviceCall): void {
  if (!hadLink(call)) return;
  const { host } = call;
  const own = findInterfaceToRemove(call);
  if (own) {
    using home = Netns.current();
    dropTakenNames(call, own);
    move(own.link, own.sandbox.netns, home, nameOnHost(call, own.link), '');
    return;
  }
  // When its namespace died, the kernel gave it back, but with the name it had in the container.
  const spec = specOf(call.config);
  // An alias alone proves nothing: administrators set some, too.
  const isGivenBack = ({ name, alias, up }: Link) =>
    !up && alias !== '' && alias !== name && (name === call.ifname || /^dev\d+$/.test(name));
  const back = spec.device
    ? listLinks(host).find(
        (link) => [link.alias, ...link.altNames].includes(spec.device!) && isGivenBack(link),
      )
    : findDevice(host, spec);
  if (!back || !isGivenBack(back) || !isPossibleName(back.alias) || getLink(host, back.alias)) return;
  giveNameBack(host, back);
}

/**
 * Whether ADD moved an interface. A program in user space that drives the device may have made one of that
 * name itself, which is not the host's. Its driver may have changed since, but then the result has no MAC
 * address. Other devices may have none either, such as a tunnel.
 */
function hadLink({ config, ifname, prevResult }: HostDeviceCall): boolean {
  const { device, hwaddr, kernelpath, pciBusID } = specOf(config);
  if (isUserSpaceDriven({ pciBusID })) return false;
  const entry = prevResult?.interfaces.find(({ name, sandbox }) => name === ifname && sandbox);
  const mayBeOnPci = Boolean(pciBusID) || !(device || hwaddr || kernelpath);
  return !mayBeOnPci || !entry || Boolean(entry.mac);
}

/** Renames a device that the kernel gave back to what it was called on the host, which is its alias. */
function giveNameBack(host: RouteSocket, { index, name, alias }: Link): void {
  host.execute(setLink(index, { name: alias, alias: '' }, name));
}

/**
 * The name for a device that is given back: the first that the kernel accepts, so that it comes back in any
 * case. The configured one may be an alternative name, and a process in the sandbox may have changed the
 * alias.
 */
function nameOnHost(call: HostDeviceCall, link: Link): string {
  const { host, ifname } = call;
  const { device = '' } = specOf(call.config);
  const names = [device, link.alias, ifname].filter(
    (one) => isPossibleName(one) && !link.altNames.includes(one),
  );
  // The kernel replaces "%d" with a free number.
  const name = names.find((one) => !getLink(host, one)) ?? 'dev%d';
  if (names[0] && name !== names[0])
    call.warn(`The host has another interface "${names[0]}". The device that comes back is called "${name}"`);
  return name;
}

/**
 * Whether an interface may have this name. The kernel refuses two that are directories in
 * /proc/sys/net/ipv4/conf (sysctl_dev_name_is_allowed in net/ipv4/devinet.c).
 */
function isPossibleName(name: string): boolean {
  return !ifnameProblem(name) && name !== 'all' && name !== 'default';
}

/**
 * Removes alternative names of the device that are taken on the host, where the kernel would not move it with
 * them. A process in the sandbox may have added some.
 */
function dropTakenNames({ host }: HostDeviceCall, { sandbox: { socket }, link }: OwnInterface): void {
  for (const name of link.altNames)
    if (getLink(host, name)) socket.execute(deleteAlternativeName(link.index, name, link.name));
}

/**
 * Moves an interface to another namespace under another name, in one request, so that it is moved completely
 * or not at all: the kernel takes it down, and uses the new name at once where the old one is in use there
 * (__dev_change_net_namespace in net/core/dev.c). If only the new name is in use, the interface arrives under
 * its old one, and is moved back.
 */
function move(link: Link, from: Netns, to: Netns, name: string, alias: string): void {
  using source = openRouteSocket(from);
  try {
    source.execute(setLink(link.index, { netns: to, name, alias }, link.name));
  } catch (error) {
    using target = openRouteSocket(to);
    const astray = getLink(source, link.name) ? undefined : getLink(target, link.name);
    if (astray)
      target.execute(setLink(astray.index, { netns: from, name: link.name, alias: link.alias }, link.name));
    if (link.up) source.execute(setLink(requireLink(source, link.name).index, { up: true }, link.name));
    throw error;
  }
}
