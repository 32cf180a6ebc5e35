/**
 * What plugins have in common that make one interface within the sandbox: macvlan, ipvlan, vlan, dummy and tap. Each says how
 * its interface is made and what CHECK looks at; the story of the verbs is told here.
 */

import {
  createLink,
  deleteLink,
  getLink,
  type Link,
  type LinkKind,
  type LinkSettings,
  parseMac,
  randomVethName,
  requireLink,
  setLink,
} from '../kernel/link.ts';
import { listRoutes } from '../kernel/route.ts';
import { openRouteSocket, type RouteSocket } from '../kernel/route-socket.ts';
import { ensureSysctl } from '../kernel/sysctl.ts';
import { isKernelError } from '../netlink/libc.ts';
import { chooseDns } from './config.ts';
import { ipamAdd, ipamCheck, ipamDel, ipamGc, ipamStatus } from './delegate.ts';
import { CniError, ErrorCode } from './errors.ts';
import { type Call, type Plugin, requirePrevResult } from './plugin.ts';
import { emptyResult, type Result } from './result.ts';
import { checkInterface, configureInterface, openSandbox, removeInterface, type Sandbox } from './sandbox.ts';
import { type Schema, string } from './schema.ts';
import { runAll } from './steps.ts';

/** A plugin that makes one interface. */
export interface InterfacePlugin<C extends object> {
  readonly name: string;
  readonly summary: string;
  readonly config: Schema<C>;
  /** Kind of the interface in the kernel. */
  readonly kind: string;
  /** Whether the configuration must name an IPAM plugin. */
  readonly needsIpam?: boolean;
  /** Makes the interface, with its final name, in the sandbox; before, it refuses what cannot be. */
  create(call: Call<C>, sandbox: Sandbox): void | Promise<void>;
  /** What CHECK finds wrong with the interface itself. @throws Error */
  check?(call: Call<C>, link: Link, sandbox: Sandbox): void;
  /** What STATUS finds missing on the node. @throws Error */
  status?(call: Call<C>): void;
  /** Addresses and routes that come from elsewhere than an IPAM plugin, as those of the plugin before. */
  inherit?(call: Call<C>): Result | undefined;
}

/** Tells the story of the verbs for a plugin that makes one interface. */
export function interfacePlugin<C extends object>(own: InterfacePlugin<C>): Plugin<C> {
  const { name, summary, config, kind } = own;
  return {
    name,
    summary,
    config,

    async add(call) {
      const inherited = own.inherit?.(call);
      if (own.needsIpam && !call.config.ipam?.type && !inherited)
        throw new Error(
          `Plugin "${name}" needs addresses. Set "ipam", for example to {"type": "host-local", …}`,
        );
      const sandbox = openSandbox(call);
      if (getLink(sandbox.socket, call.ifname))
        throw new Error(
          `Sandbox "${call.netns}" has an interface "${call.ifname}" already. Run DEL for it first, or use another CNI_IFNAME`,
        );
      call.undo(() => {
        const link = getLink(sandbox.socket, call.ifname);
        if (link) sandbox.socket.execute(deleteLink(link.index, call.ifname));
      });
      await own.create(call, sandbox);

      const addresses = call.config.ipam?.type ? await ipamAdd(call) : (inherited ?? emptyResult());
      const link = requireLink(sandbox.socket, call.ifname);
      const result: Result = {
        interfaces: [{ name: link.name, ...(link.mac && { mac: link.mac }), sandbox: call.netns }],
        ips: addresses.ips.map((ip) => ({ ...ip, interface: 0 })),
        routes: addresses.routes,
        dns: chooseDns(call.config.dns, addresses.dns),
      };
      sandbox.netns.run(() => {
        ensureSysctl(['ipv4', 'conf', call.ifname, 'arp_notify'], '1');
        ensureSysctl(['ipv6', 'conf', call.ifname, 'ndisc_notify'], '1');
      });
      if (result.ips.length > 0) configureInterface(sandbox, call.ifname, result);
      else sandbox.socket.execute(setLink(link.index, { up: true }, call.ifname));
      return result;
    },

    async del(call) {
      // The address first: a DHCP server is told through the interface.
      await runAll(
        () => ipamDel(call),
        () => removeInterface(call),
      );
    },

    async check(call) {
      await ipamCheck(call);
      requirePrevResult(call);
      const { sandbox, link } = checkInterface(call, kind);
      own.check?.(call, link, sandbox);
    },

    async status(call) {
      await ipamStatus(call);
      try {
        own.status?.(call);
      } catch (error) {
        throw new CniError(ErrorCode.NotAvailable, (error as Error).message);
      }
    },

    gc: ipamGc,
  };
}

/** Keys of plugins whose interface sits on another one. */
export interface MasterConfig {
  master?: string;
  linkInContainer?: boolean;
  mtu?: number;
}

/**
 * The interface below, and the socket of the namespace that it is in.
 * @throws Error when it is not there, or is not fit to carry another.
 */
export function findMaster(
  call: Call<MasterConfig>,
  sandbox: Sandbox,
): { socket: RouteSocket; master: Link } {
  const { linkInContainer = false, mtu = 0 } = call.config;
  const socket = linkInContainer ? sandbox.socket : openRouteSocket();
  const where = linkInContainer ? `sandbox "${call.netns}"` : 'the node';
  const name = call.config.master || defaultRouteInterface(socket, where);
  const master = getLink(socket, name);
  if (!master)
    throw new Error(
      `Master "${name}" does not exist in ${where}. Correct "master"${linkInContainer ? '' : ', or set "linkInContainer" if it is in the sandbox'}`,
    );
  if (master.portKind && master.portKind !== 'vrf')
    throw new Error(
      `Master "${name}" is a port of a ${master.portKind} itself, which gets all its frames. Use the ${master.portKind} as "master", or take the port out of it`,
    );
  if (!master.up) throw new Error(`Master "${name}" is down. Set it up with "ip link set ${name} up"`);
  if (mtu > master.mtu)
    throw new Error(
      `"mtu" is ${mtu}, but master "${name}" has only ${master.mtu}. Set it to that or less, or raise the master's`,
    );
  return { socket, master };
}

/** STATUS of the interface below, as far as it is on the node. */
export function checkMasterExists({ config }: Call<MasterConfig>): void {
  if (config.linkInContainer) return;
  using socket = openRouteSocket();
  const name = config.master || defaultRouteInterface(socket, 'the node');
  if (!getLink(socket, name))
    throw new Error(`Master "${name}" does not exist on the node. Correct "master", or make it`);
}

/** CHECK of what the interface sits on. */
export function checkMaster(call: Call<MasterConfig>, link: Link, sandbox: Sandbox): void {
  if (!call.config.master) return;
  using host = openRouteSocket();
  const master = getLink(call.config.linkInContainer ? sandbox.socket : host, call.config.master);
  if (!master)
    throw new Error(
      `Master "${call.config.master}" is gone. Make it again, then delete the container and add it`,
    );
  if (link.parent !== undefined && link.parent !== master.index)
    throw new Error(
      `Interface "${link.name}" does not sit on master "${master.name}". Delete the container and add it again`,
    );
  if (call.config.mtu && link.mtu !== call.config.mtu)
    throw new Error(`Interface "${link.name}" has MTU ${link.mtu} where ${call.config.mtu} is wanted`);
}

/** MAC address for the interface: of the runtime, of CNI_ARGS, of the configuration. @throws Error when it is none. */
export function requestedMac(
  call: Call<{ mac?: string; runtimeConfig?: { mac?: string } }>,
): string | undefined {
  const mac = call.config.runtimeConfig?.mac || call.args(['MAC']).MAC || call.config.mac;
  if (mac && !parseMac(mac))
    throw new Error(`The requested MAC address "${mac}" is none. Write it like "0a:58:0a:01:00:05"`);
  return mac || undefined;
}

/** The key "master" of a configuration. */
export const masterSchema = string({
  description: 'Interface to sit on; by default that of the first default route.',
});

/**
 * Makes the interface in the sandbox, with a message that helps where the kernel lacks the kind.
 * @param socket of the namespace that the interface below is in.
 * @param ifname the name that it gets in the end. It is made under a random one, since kernels before 6.13 look names up where
 *   they are asked rather than where the interface goes, and the node may have that name.
 * @throws Error
 */
export function createInSandbox(
  socket: RouteSocket,
  sandbox: Sandbox,
  ifname: string,
  kind: LinkKind,
  settings: LinkSettings = {},
): void {
  const name = randomVethName();
  try {
    socket.execute(createLink(kind, { ...settings, name, netns: sandbox.netns }));
  } catch (error) {
    if (isKernelError(error, 'EOPNOTSUPP', 'ENOTSUP'))
      throw new Error(
        `The kernel has no interfaces of kind "${kind.kind}". Load its module with "modprobe ${kind.kind === 'vlan' ? '8021q' : kind.kind}"`,
        { cause: error },
      );
    throw error;
  }
  const link = requireLink(sandbox.socket, name);
  try {
    sandbox.socket.execute(setLink(link.index, { name: ifname }, name));
  } catch (error) {
    sandbox.socket.execute(deleteLink(link.index, name));
    throw error;
  }
}

function defaultRouteInterface(socket: RouteSocket, where: string): string {
  for (const family of [4, 6] as const) {
    const route = listRoutes(socket, { family, table: 254 }).find(({ dst }) => dst.length === 0);
    const index = route?.link ?? route?.hops[0]?.link;
    const link = index === undefined ? undefined : getLink(socket, index);
    if (link) return link.name;
  }
  throw new Error(`"master" is not set, and ${where} has no default route to take it from. Set "master"`);
}
