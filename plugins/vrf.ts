/** vrf: puts the sandbox's interface into a VRF, so that it routes by a table of its own. */

import type { Call } from '../lib/cni/call.ts';
import { ifnameProblem } from '../lib/cni/invocation.ts';
import { definePlugin, requirePrevResult } from '../lib/cni/plugin.ts';
import { probeKernel } from '../lib/cni/probe.ts';
import { type InferShape, integer, required, string } from '../lib/cni/schema.ts';
import { AddressFlag, addAddress, type InterfaceAddress, listAddresses } from '../lib/kernel/address.ts';
import { NetlinkGroup, waitForEvent } from '../lib/kernel/events.ts';
import { deleteLink, getLink, type Link, requireLink, setLink } from '../lib/kernel/link.ts';
import { copyRoute, listRoutes, type Route, RouteTable } from '../lib/kernel/route.ts';
import type { RouteSocket } from '../lib/kernel/route-socket.ts';
import type { Sandbox } from '../lib/kernel/sandbox.ts';
import { createVrf, vrfMembers, vrfTable } from '../lib/kernel/vrf.ts';
import { isKernelError } from '../lib/netlink/libc.ts';

/** Milliseconds. */
const addressPatience = 5000;
/** RTPROT_KERNEL of linux/rtnetlink.h. */
const byKernel = 2;

const config = {
  vrfname: required(string({ description: 'Name of the VRF, made if it does not exist.' })),
  table: integer({
    max: 0xffffffff,
    description: 'Table of the VRF; by default the first that no other VRF has.',
  }),
};

type VrfCall = Call<InferShape<typeof config>>;

export const plugin = definePlugin({
  name: 'vrf',
  summary: 'Puts an interface into a VRF, so that it routes by a table of its own.',
  role: 'chained',
  since: '0.3.1',
  config,

  add(call) {
    const result = requirePrevResult(call);
    const sandbox = call.sandbox;
    const { socket } = sandbox;
    const link = requireLink(socket, call.ifname);
    refuseOtherMaster(socket, link);
    const vrf = ensureVrf(call, socket);
    const state = stateOf(socket, link);
    call.undo(() => move(sandbox, link, undefined, state));
    move(sandbox, link, vrf, state);
    return result;
  },

  del(call) {
    const socket = call.sandboxIfPresent?.socket;
    const vrf = socket && getLink(socket, call.config.vrfname);
    if (!vrf || vrfTable(vrf) === undefined) return;
    const link = getLink(socket, call.ifname);
    if (link?.master === vrf.index) socket.execute(setLink(link.index, { master: 0 }, link.name));
    deleteIfEmpty(socket, vrf);
  },

  check(call) {
    requirePrevResult(call);
    const { socket } = call.sandbox;
    const { vrfname, table } = call.config;
    const vrf = getLink(socket, vrfname);
    if (!vrf) throw new Error(`VRF "${vrfname}" is missing from the sandbox. Add the container again`);
    checkVrf(vrf, table);
    if (!vrf.up) throw new Error(`VRF "${vrfname}" is down. Set it up again`);
    if (requireLink(socket, call.ifname).master !== vrf.index)
      throw new Error(`Interface "${call.ifname}" is not in VRF "${vrfname}". Add the container again`);
  },

  status() {
    probeKernel((socket) => void createVrf(socket, 'trial'));
  },
});

/** What an interface loses when it changes the VRF. */
interface State {
  addresses: InterfaceAddress[];
  routes: Route[];
}

function refuseOtherMaster(socket: RouteSocket, { name, master }: Link): void {
  if (!master) return;
  const other = getLink(socket, master)?.name ?? master;
  throw new Error(
    `Interface "${name}" is in "${other}" already. Take it out, or use another network for the VRF`,
  );
}

/** The VRF of the configuration, which goes again if ADD fails and it is empty. */
function ensureVrf(call: VrfCall, socket: RouteSocket): Link {
  const { vrfname, table } = call.config;
  const problem = ifnameProblem(vrfname);
  if (problem)
    throw new Error(`"vrfname" is "${vrfname.slice(0, 80)}", which ${problem}. Use a name such as "red"`);
  const existing = getLink(socket, vrfname);
  if (existing) {
    checkVrf(existing, table);
    return existing;
  }
  const vrf = createVrf(socket, vrfname, table || undefined);
  call.undo(() => deleteIfEmpty(socket, vrf));
  return vrf;
}

/** @throws Error when the interface is no VRF, or has another table than the configuration wants. */
function checkVrf(vrf: Link, wanted = 0): void {
  const table = vrfTable(vrf);
  if (table === undefined)
    throw new Error(
      `Interface "${vrf.name}" of the sandbox is ${vrf.kind ? `of kind "${vrf.kind}"` : 'a physical interface'}, not a VRF. Use another "vrfname"`,
    );
  if (wanted !== 0 && table !== wanted)
    throw new Error(
      `VRF "${vrf.name}" has table ${table} where ${wanted} is wanted. Leave "table" out, or use another "vrfname"`,
    );
}

function deleteIfEmpty(socket: RouteSocket, vrf: Link): void {
  if (vrfMembers(socket, vrf).length > 0) return;
  try {
    socket.execute(deleteLink(vrf.index, vrf.name));
  } catch (error) {
    if (!isKernelError(error, 'ENODEV')) throw error;
  }
}

/** IPv6 addresses, and all routes in the main table but those that the kernel makes for addresses by itself. */
function stateOf(socket: RouteSocket, { index }: Link): State {
  const routes = ([4, 6] as const).flatMap((family) =>
    listRoutes(socket, { family, link: index, table: RouteTable.Main }),
  );
  return {
    addresses: listAddresses(socket, index, 6).filter(({ prefix }) => !prefix.address.isLinkLocal),
    routes: routes.filter(({ protocol }) => protocol !== byKernel),
  };
}

/** Puts the interface into a VRF, or out of any, and gives it back what the kernel takes from it on the way. */
function move(sandbox: Sandbox, link: Link, vrf: Link | undefined, state: State): void {
  const { socket } = sandbox;
  socket.execute(setLink(link.index, { master: vrf?.index ?? 0 }, link.name));
  const kept = listAddresses(socket, link.index, 6);
  const lost = state.addresses.filter(({ prefix }) => !kept.some((address) => address.prefix.equals(prefix)));
  socket.execute(
    ...lost.map(({ prefix }) => addAddress(link.index, prefix, { noDad: true, label: link.name })),
  );
  const table = vrf ? vrfTable(vrf)! : RouteTable.Main;
  try {
    waitForAddresses(sandbox, link, state.addresses, vrf ? table : RouteTable.Local);
  } finally {
    const direct = state.routes.filter(({ gw, hops }) => !gw && hops.length === 0);
    const others = state.routes.filter((route) => !direct.includes(route));
    socket.execute(...[...direct, ...others].map((route) => copyRoute(route, table)));
  }
}

/** Waits until IPv6 addresses can be used: only when they have passed for unique does the kernel route packets to them. */
function waitForAddresses(
  sandbox: Sandbox,
  { index, name }: Link,
  addresses: readonly InterfaceAddress[],
  table: number,
): void {
  if (addresses.length === 0) return;
  const unusable = () => {
    const failed = listAddresses(sandbox.socket, index, 6).find(({ flags }) => flags & AddressFlag.DadFailed);
    if (failed)
      throw new Error(
        `Somebody on the network has IPv6 address ${failed.prefix.address} of interface "${name}" already. Free it there, or exclude it from the range`,
      );
    const routes = listRoutes(sandbox.socket, { family: 6, table });
    return addresses.find(({ prefix }) => !routes.some(({ dst }) => dst.equals(prefix.address.toPrefix())));
  };
  const groups = NetlinkGroup.IPv6Address + NetlinkGroup.IPv6Route;
  if (!waitForEvent(groups, addressPatience, () => !unusable(), sandbox.netns))
    throw new Error(
      `Address ${unusable()?.prefix} of interface "${name}" cannot be used ${addressPatience / 1000} seconds after it changed the VRF`,
    );
}
