/** vrf: puts the sandbox's interface into a VRF, so that it is routed by a table of its own. */

import type { Call } from '../lib/cni/call.ts';
import { ifnameProblem } from '../lib/cni/invocation.ts';
import { probeKernel } from '../lib/cni/kernel-probe.ts';
import { findOwnSandbox } from '../lib/cni/own-interface.ts';
import { definePlugin, requirePrevResult } from '../lib/cni/plugin.ts';
import { type InferShape, integer, required, string } from '../lib/cni/schema.ts';
import { AddressFlag, addAddress, type InterfaceAddress, listAddresses } from '../lib/kernel/address.ts';
import { NetlinkGroup, waitForEvent } from '../lib/kernel/events.ts';
import { deleteLink, getLink, type Link, listPorts, requireLink, setLink } from '../lib/kernel/link.ts';
import { vrfTable } from '../lib/kernel/link-kinds.ts';
import {
  copyRoute,
  listRoutes,
  listRoutesOver,
  putBackRoute,
  type Route,
  RouteProtocol,
  RouteTable,
  removeRoute,
} from '../lib/kernel/route.ts';
import type { RouteSocket } from '../lib/kernel/route-socket.ts';
import { lockSandbox, type Sandbox } from '../lib/kernel/sandbox.ts';
import { createVrf } from '../lib/kernel/vrf.ts';
import { requireGone, requirePresent } from '../lib/netlink/error.ts';
import { isKernelError } from '../lib/netlink/libc.ts';

/** How long IPv6 addresses may take to become usable. */
const addressTimeoutMs = 5000;

const config = {
  vrfname: required(string({ description: 'Name of the VRF, created if it does not exist.' })),
  table: integer({
    max: 0xffffffff,
    description: 'Table of the VRF; by default the first that no other VRF has.',
  }),
};

type Config = InferShape<typeof config>;
type VrfCall = Call<Config>;

export const plugin = definePlugin({
  name: 'vrf',
  summary: 'Puts an interface into a VRF, so that it is routed by a table of its own.',
  role: 'chained',
  since: '0.3.1',
  config,
  validate,

  explain: ({ vrfname, table }) => [
    `Puts the interface into VRF "${vrfname}" of the container, created unless it exists${table ? `, with table ${table}` : ''}`,
    'Moves the routes of the interface to the table of the VRF',
  ],

  async add(call) {
    const result = requirePrevResult(call);
    validate(call.config);
    const { sandbox } = call;
    // Several networks may be attached at the same time.
    await lockSandbox(sandbox);
    const link = requireLink(sandbox.socket, call.ifname);
    refuseOtherMaster(sandbox.socket, link);
    const vrf = ensureVrf(call, sandbox.socket);
    const state = stateOf(sandbox.socket, link);
    setMaster(sandbox.socket, link, vrf);
    call.undo(`take interface "${link.name}" out of its VRF`, () => {
      setMaster(sandbox.socket, link, undefined);
      return restoreState(sandbox, link, undefined, state);
    });
    // The kernel leaves these in the main table, where they would lead into the VRF.
    requireGone(sandbox.socket.attempt(...state.routes.filter(({ isPart }) => isPart).map(removeRoute)));
    await restoreState(sandbox, link, vrf, state);
    return result;
  },

  async del(call) {
    const sandbox = findOwnSandbox(call);
    if (!sandbox) return;
    await lockSandbox(sandbox);
    const { socket } = sandbox;
    const vrf = getLink(socket, call.config.vrfname);
    if (!vrf || vrfTable(vrf) === undefined) return;
    const link = getLink(socket, call.ifname);
    if (link?.master === vrf.index) setMaster(socket, link, undefined);
    deleteIfEmpty(socket, vrf);
  },

  check(call) {
    requirePrevResult(call);
    const { socket } = call.sandbox;
    const { vrfname, table } = call.config;
    const vrf = getLink(socket, vrfname);
    if (!vrf)
      throw new Error(`VRF "${vrfname}" is missing from the sandbox. Delete the container and add it again`);
    checkVrf(vrf, table);
    if (!vrf.up)
      throw new Error(
        `VRF "${vrfname}" is down. Bring it up with "ip link set ${vrfname} up" in the sandbox`,
      );
    if (requireLink(socket, call.ifname).master !== vrf.index)
      throw new Error(
        `Interface "${call.ifname}" is not in VRF "${vrfname}". Delete the container and add it again`,
      );
  },

  status(call) {
    validate(call.config);
    probeKernel((socket) => createVrf(socket, 'probe'));
  },
});

function validate({ vrfname }: Config): void {
  const problem = ifnameProblem(vrfname);
  if (problem)
    throw new Error(`"vrfname" is "${vrfname.slice(0, 80)}", which ${problem}. Use a name such as "red"`);
}

/** What an interface loses when its VRF changes. */
interface State {
  addresses: readonly (InterfaceAddress & {
    /** Whether the kernel's route to its subnet is present, which plugins such as ptp remove. */
    readonly hasRoute: boolean;
  })[];
  routes: readonly Route[];
}

function refuseOtherMaster(socket: RouteSocket, { name, master }: Link): void {
  if (!master) return;
  const other = getLink(socket, master)?.name ?? master;
  throw new Error(
    `Interface "${name}" already belongs to "${other}". Run DEL for it first, or use another network for the VRF`,
  );
}

/**
 * The configured VRF, created if need be. A new one is deleted if ADD fails, unless others have joined it.
 */
function ensureVrf(call: VrfCall, socket: RouteSocket): Link {
  const { vrfname, table } = call.config;
  const existing = getLink(socket, vrfname);
  if (existing) {
    checkVrf(existing, table);
    return existing;
  }
  try {
    createVrf(socket, vrfname, table || undefined);
    call.undo(`delete VRF "${vrfname}", if it is empty`, () => {
      const vrf = getLink(socket, vrfname);
      if (vrf) deleteIfEmpty(socket, vrf);
    });
  } catch (error) {
    // The reference plugin, which takes no lock, was faster.
    if (!isKernelError(error, 'EEXIST')) throw error;
  }
  const vrf = requireLink(socket, vrfname);
  checkVrf(vrf, table);
  return vrf;
}

/** @throws Error when the interface is not a VRF, or has another table than the configuration wants. */
function checkVrf(vrf: Link, wanted = 0): void {
  const table = vrfTable(vrf);
  if (table === undefined)
    throw new Error(
      `Interface "${vrf.name}" of the sandbox is ${vrf.kind ? `of kind "${vrf.kind}"` : 'a physical interface'}, not a VRF. Use another "vrfname"`,
    );
  if (wanted !== 0 && table !== wanted)
    throw new Error(
      `VRF "${vrf.name}" has table ${table}, but should have ${wanted}. Leave "table" out, or use another "vrfname"`,
    );
}

function deleteIfEmpty(socket: RouteSocket, vrf: Link): void {
  if (listPorts(socket, vrf.index).length > 0) return;
  try {
    socket.execute(deleteLink(vrf.index, vrf.name));
  } catch (error) {
    if (!isKernelError(error, 'ENODEV')) throw error;
  }
}

/** IPv6 addresses, and all routes except those that the kernel adds for addresses by itself. */
function stateOf(socket: RouteSocket, { index }: Link): State {
  const routes = listRoutesOver(socket, index).filter(({ table }) => table !== RouteTable.Local);
  const byKernel = routes.filter(
    ({ protocol, table }) => protocol === RouteProtocol.Kernel && table === RouteTable.Main,
  );
  return {
    addresses: listAddresses(socket, index, 6)
      .filter(({ prefix }) => !prefix.address.isLinkLocal)
      .map((one) => ({ ...one, hasRoute: byKernel.some(({ dst }) => dst.equals(one.prefix.network)) })),
    routes: routes.filter((route) => !byKernel.includes(route)),
  };
}

/** Puts the interface into a VRF, or takes it out of its VRF. */
function setMaster(socket: RouteSocket, link: Link, vrf: Link | undefined): void {
  socket.execute(setLink(link.index, { master: vrf?.index ?? 0 }, link.name));
}

/**
 * Gives an interface back what the kernel took from it when its VRF changed: routes of the main table go to
 * the VRF's table, the others back to where they were.
 */
async function restoreState(
  sandbox: Sandbox,
  link: Link,
  vrf: Link | undefined,
  state: State,
): Promise<void> {
  const { socket } = sandbox;
  const kept = listAddresses(socket, link.index, 6);
  const lost = state.addresses.filter(({ prefix }) => !kept.some((address) => address.prefix.equals(prefix)));
  socket.execute(
    ...lost.map(({ prefix }) => addAddress(link.index, prefix, { noDad: true, label: link.name })),
  );
  const table = vrf && vrfTable(vrf);
  try {
    await waitForAddresses(sandbox, link, state.addresses, table ?? RouteTable.Local);
  } finally {
    const filter = { family: 6, link: link.index, table: table ?? RouteTable.Main } as const;
    const added = listRoutes(socket, filter).filter(
      ({ protocol, dst }) =>
        protocol === RouteProtocol.Kernel &&
        state.addresses.some(({ prefix, hasRoute }) => !hasRoute && dst.equals(prefix.network)),
    );
    socket.execute(...added.map(removeRoute));
    const direct = state.routes.filter(({ gw, hops }) => !gw && hops.length === 0);
    const others = state.routes.filter((route) => !direct.includes(route));
    const copies = [...direct, ...others].map((route) =>
      table !== undefined && route.table === RouteTable.Main ? copyRoute(route, table) : putBackRoute(route),
    );
    // A next hop that has not been removed yet need not be put back.
    requirePresent(socket.attempt(...copies));
  }
}

/**
 * Waits until IPv6 addresses can be used: the kernel routes packets to them only once duplicate address
 * detection has passed.
 */
async function waitForAddresses(
  sandbox: Sandbox,
  { index, name }: Link,
  addresses: readonly InterfaceAddress[],
  table: number,
): Promise<void> {
  if (addresses.length === 0) return;
  const unusable = () => {
    const failed = listAddresses(sandbox.socket, index, 6).find(({ flags }) => flags & AddressFlag.DadFailed);
    if (failed)
      throw new Error(
        `Another host on the network already has IPv6 address ${failed.prefix.address} of interface "${name}". Free it there, or exclude it from the range`,
      );
    const routes = listRoutes(sandbox.socket, { family: 6, table });
    return addresses.find(({ prefix }) => !routes.some(({ dst }) => dst.equals(prefix.address.toPrefix())));
  };
  const groups = NetlinkGroup.IPv6Address + NetlinkGroup.IPv6Route;
  if (!(await waitForEvent(groups, addressTimeoutMs, () => !unusable(), sandbox.netns)))
    throw new Error(
      `Address ${unusable()?.prefix} of interface "${name}" cannot be used ${addressTimeoutMs / 1000} seconds after it changed the VRF. Try again, or see with "ip -6 address" in the sandbox what becomes of it`,
    );
}
