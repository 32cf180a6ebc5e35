/** bridge: connects a sandbox to a bridge on the node. */

import { chooseDns } from '../lib/cni/config.ts';
import { ipamAdd, ipamCheck, ipamDel, ipamGc, ipamStatus } from '../lib/cni/delegate.ts';
import { attachmentOf, masquerade, masqueradeShape } from '../lib/cni/masquerade.ts';
import { type Call, type Plugin, requirePrevResult } from '../lib/cni/plugin.ts';
import { emptyResult, type Interface, type IPConfig, type Result } from '../lib/cni/result.ts';
import {
  checkInterface,
  configureInterface,
  enableForwarding,
  gatewayOf,
  openSandbox,
  removeVethPair,
  type Sandbox,
} from '../lib/cni/sandbox.ts';
import { array, boolean, type Infer, integer, object, string } from '../lib/cni/schema.ts';
import { begin, runAll } from '../lib/cni/steps.ts';
import { Prefix } from '../lib/ip.ts';
import { ensureBridge, ensureGatewayAddress } from '../lib/kernel/bridge.ts';
import {
  assignVlans,
  checkVlans,
  ensureVlanInterface,
  resolveTrunk,
  type VlanPort,
} from '../lib/kernel/bridge-vlan.ts';
import {
  bridgePortSettings,
  deleteLink,
  getLink,
  type Link,
  parseMac,
  requireLink,
  setBridgePort,
  setLink,
  waitUntilUp,
} from '../lib/kernel/link.ts';
import { openRouteSocket, type RouteSocket } from '../lib/kernel/route-socket.ts';
import { ensureSysctl } from '../lib/kernel/sysctl.ts';
import { createVethPair } from '../lib/kernel/veth.ts';

const vid = (description: string, min = 1) => integer({ min, max: 4094, description });

const config = object({
  ...masqueradeShape,
  bridge: string({ description: 'Name of the bridge, made if it does not exist; "cni0" by default.' }),
  isGateway: boolean({ description: 'Give the bridge the gateway address of the subnet.' }),
  isDefaultGateway: boolean({ description: 'Besides, make it the default route of the container.' }),
  forceAddress: boolean({
    description: 'Replace an address of the bridge that is in the way of the gateway.',
  }),
  mtu: integer({ max: 65535, description: 'MTU in bytes; 0 leaves it to the kernel.' }),
  hairpinMode: boolean({
    description: 'Let a container reach itself through the bridge, say by a port of the node.',
  }),
  promiscMode: boolean({ description: 'Put the bridge into promiscuous mode. Excludes "hairpinMode".' }),
  vlan: vid('VLAN of the untagged frames of the container.', 0),
  vlanTrunk: array(
    object({
      id: vid('One VLAN.'),
      minID: vid('First VLAN of a range.'),
      maxID: vid('Last VLAN of a range.'),
    }),
    { description: 'VLANs whose tagged frames the container gets as well.' },
  ),
  preserveDefaultVlan: boolean({ description: 'Keep VLAN 1, which the bridge gives every port.' }),
  macspoofchk: boolean({
    description: 'Drop frames from the container that bear another MAC address than its own.',
  }),
  disableContainerInterface: boolean({
    description: 'Leave the container\'s interface down. Excludes "ipam".',
  }),
  portIsolation: boolean({ description: 'Keep the container from other isolated ports of the bridge.' }),
  enabledad: boolean({
    description: 'Wait until duplicate address detection has found the IPv6 addresses unused.',
  }),
  runtimeConfig: object({ mac: string() }),
  args: object({ cni: object({ mac: string() }) }),
});

type Config = Infer<typeof config>;
type BridgeCall = Call<Config>;

export const plugin: Plugin<Config> = {
  name: 'bridge',
  summary: 'Connects a sandbox to a bridge on the node.',
  config,

  async add(call) {
    const { vlans, mac } = checkConfig(call);
    const host = openRouteSocket();
    const sandbox = openSandbox(call);
    const result = hasIpam(call) ? await addressesFromIpam(call) : emptyResult();
    result.dns = chooseDns(call.config.dns, result.dns);

    const rules = begin(() => masquerade(call).add(result.ips));
    try {
      await connect(call, host, sandbox, result, vlans, mac);
    } finally {
      await rules();
    }
    return result;
  },

  async del(call) {
    const pair = begin(() => removeVethPair(call));
    const rules = begin(() => masquerade(call).del());
    await runAll(
      pair,
      () => ipamDel(call),
      async () => {
        if (call.config.macspoofchk)
          (await import('../lib/firewall/macspoof.ts')).deleteMacSpoofCheck(attachmentOf(call));
      },
      rules,
    );
  },

  async check(call) {
    await ipamCheck(call);
    const { bridge, port } = checkPort(call);
    const { disableContainerInterface = false } = call.config;
    const { link } = checkInterface(call, 'veth', { expectDown: disableContainerInterface });
    if (port.parent !== link.index)
      throw new Error(
        `Port "${port.name}" of bridge "${bridge.name}" is not the other end of "${call.ifname}"`,
      );
    await masquerade(call).check();
    if (call.config.macspoofchk)
      (await import('../lib/firewall/macspoof.ts')).checkMacSpoofCheck(
        attachmentOf(call),
        port.name,
        link.mac,
      );
  },

  async status(call) {
    await ipamStatus(call);
    await masquerade(call).status();
  },

  async gc(call) {
    await runAll(
      () => ipamGc(call),
      () => masquerade(call).gc(),
      async () => {
        if (!call.config.macspoofchk) return;
        const { collectMacSpoofChecks } = await import('../lib/firewall/macspoof.ts');
        const host = openRouteSocket();
        collectMacSpoofChecks((port) => getLink(host, port) !== undefined);
      },
    );
  },
};

/** Refuses settings that contradict one another, before anything is touched. */
function checkConfig(call: BridgeCall): { vlans: VlanPort; mac: string | undefined } {
  const {
    hairpinMode,
    promiscMode,
    disableContainerInterface,
    vlan = 0,
    vlanTrunk = [],
    preserveDefaultVlan = false,
  } = call.config;
  if (hairpinMode && promiscMode)
    throw new Error(
      '"hairpinMode" and "promiscMode" are both set, which duplicates frames. Set only one of them',
    );
  if (disableContainerInterface && hasIpam(call))
    throw new Error(
      '"disableContainerInterface" is set, so the container can have no address. Take "ipam" out, or that key',
    );
  const mac = call.config.runtimeConfig?.mac || call.config.args?.cni?.mac || call.args(['MAC']).MAC;
  if (mac && !parseMac(mac))
    throw new Error(`The requested MAC address "${mac}" is none. Write it like "0a:58:0a:01:00:05"`);
  return { vlans: { vlan, trunk: resolveTrunk(vlanTrunk), preserveDefaultVlan }, mac };
}

/** Addresses for the container, with the gateways and the default route that the bridge is to serve. */
async function addressesFromIpam(call: BridgeCall): Promise<Result> {
  const { isDefaultGateway = false, isGateway = isDefaultGateway } = call.config;
  const { ips, routes, dns } = await ipamAdd(call);
  const result: Result = {
    interfaces: [],
    ips: ips.map((ip) => ({
      ...ip,
      interface: 2,
      ...(isGateway && !ip.gateway && { gateway: ip.address.first.plus(1) }),
    })),
    routes: [...routes],
    dns,
  };
  if (!isDefaultGateway) return result;
  for (const family of [4, 6] as const) {
    const gateway = gatewayOf(result.ips, family);
    const hasDefault = routes.some(({ dst, gw }) => gw && dst.family === family && dst.length === 0);
    if (gateway && !hasDefault)
      result.routes.push({ dst: Prefix.parse(family === 4 ? '0.0.0.0/0' : '::/0'), gw: gateway });
  }
  return result;
}

/** Makes the bridge and the pair, and gives both sides their addresses. */
async function connect(
  call: BridgeCall,
  host: RouteSocket,
  sandbox: Sandbox,
  result: Result,
  vlans: VlanPort,
  mac: string | undefined,
): Promise<void> {
  const {
    mtu = 0,
    promiscMode = false,
    hairpinMode,
    portIsolation,
    enabledad = false,
    disableContainerInterface,
  } = call.config;
  const bridge = ensureBridge(host, bridgeName(call), {
    mtu,
    promisc: promiscMode,
    vlanFiltering: usesVlans(vlans),
  });
  const { hostLink, sandboxLink } = createVethPair({
    host,
    hostEnd: { master: bridge.index },
    sandbox,
    sandboxEnd: { name: call.ifname, mtu, ...(mac && { mac }) },
  });
  call.undo(() => void host.execute(deleteLink(hostLink.index, hostLink.name)));
  if (hairpinMode || portIsolation)
    host.execute(
      setBridgePort(
        hostLink.index,
        { ...(hairpinMode && { hairpin: true }), ...(portIsolation && { isolated: true }) },
        hostLink.name,
      ),
    );
  if (usesVlans(vlans)) assignVlans(host, hostLink, vlans);

  if (call.config.macspoofchk) {
    const { addMacSpoofCheck, deleteMacSpoofCheck } = await import('../lib/firewall/macspoof.ts');
    call.undo(() => deleteMacSpoofCheck(attachmentOf(call)));
    addMacSpoofCheck(attachmentOf(call), hostLink.name, sandboxLink.mac);
  }

  result.interfaces = [
    { name: bridge.name, mac: bridge.mac },
    { name: hostLink.name, mac: hostLink.mac },
    { name: sandboxLink.name, mac: sandboxLink.mac, sandbox: call.netns },
  ];
  if (disableContainerInterface) return;
  if (hasIpam(call)) {
    sandbox.netns.run(() => prepareAddresses(call.ifname, enabledad));
    configureInterface(sandbox, call.ifname, result, { detectDuplicates: enabledad });
    result.interfaces.push(...serveGateways(call, host, bridge, result.ips, vlans));
  } else {
    sandbox.socket.execute(setLink(sandboxLink.index, { up: true }, call.ifname));
  }
  if (!waitUntilUp(host, hostLink.index))
    throw new Error(`Port "${hostLink.name}" of bridge "${bridge.name}" is still down after two seconds`);
  // Now that frames pass: what the kernel announced by itself when the link came up was lost. A MAC address that is set, if
  // only to what it is, has it announce again; a packet socket of ours would take 25 ms to open and close.
  if (result.ips.length > 0)
    sandbox.socket.execute(setLink(sandboxLink.index, { mac: sandboxLink.mac }, call.ifname));
  // The bridge takes the lowest MAC address of its ports unless its own is pinned.
  result.interfaces[0]!.mac = requireLink(host, bridge.index).mac;
}

/** Settings that must be there before the first address is: announce it, and whether to look for duplicates. */
function prepareAddresses(ifname: string, detectDuplicates: boolean): void {
  ensureSysctl(['ipv4', 'conf', ifname, 'arp_notify'], '1');
  ensureSysctl(['ipv6', 'conf', ifname, 'ndisc_notify'], '1');
  ensureSysctl(['ipv6', 'conf', ifname, 'accept_dad'], detectDuplicates ? '1' : '0');
  if (detectDuplicates) ensureSysctl(['ipv6', 'conf', ifname, 'enhanced_dad'], '1');
}

/**
 * Puts the gateways' addresses on the bridge, or on an interface in the container's VLAN.
 * @returns the interface that was made for that.
 */
function serveGateways(
  call: BridgeCall,
  host: RouteSocket,
  bridge: Link,
  ips: readonly IPConfig[],
  vlans: VlanPort,
): Interface[] {
  const { isDefaultGateway = false, isGateway = isDefaultGateway, forceAddress = false } = call.config;
  if (!isGateway) return [];
  const link = vlans.vlan ? ensureVlanInterface(host, bridge, vlans) : bridge;
  for (const { address, gateway } of ips)
    if (gateway) ensureGatewayAddress(host, link, new Prefix(gateway, address.length), forceAddress);
  enableForwarding(ips);
  return vlans.vlan ? [{ name: link.name, mac: link.mac }] : [];
}

/** The bridge and the container's port on it, as ADD left them. @throws Error for what is different now. */
function checkPort(call: BridgeCall): { bridge: Link; port: Link } {
  const { interfaces } = requirePrevResult(call);
  const { vlans } = checkConfig(call);
  const { hairpinMode = false, portIsolation = false, promiscMode = false } = call.config;
  const host = openRouteSocket();
  const name = bridgeName(call);
  const bridge = getLink(host, name);
  if (bridge?.kind !== 'bridge')
    throw new Error(`Bridge "${name}" is missing. Delete the container and add it again`);
  if (!bridge.up) throw new Error(`Bridge "${name}" is down. Set it up with "ip link set ${name} up"`);
  if (promiscMode && bridge.promiscuity === 0) throw new Error(`Bridge "${name}" is not promiscuous`);
  const entry = interfaces.find((one) => !one.sandbox && one.name !== name && one.name.startsWith('veth'));
  if (!entry)
    throw new Error(
      `"prevResult" names no port of bridge "${name}". Pass the result of this attachment's ADD`,
    );
  const port = getLink(host, entry.name);
  if (!port)
    throw new Error(
      `Port "${entry.name}" of bridge "${name}" is missing. Delete the container and add it again`,
    );
  if (port.kind !== 'veth' || port.master !== bridge.index)
    throw new Error(
      `Interface "${entry.name}" is no port of bridge "${name}". Add it with "ip link set ${entry.name} master ${name}"`,
    );
  if (entry.mac && entry.mac !== port.mac)
    throw new Error(`Port "${entry.name}" has MAC address ${port.mac} where ${entry.mac} is wanted`);
  const settings = bridgePortSettings(port);
  if (settings && (settings.hairpin !== hairpinMode || settings.isolated !== portIsolation))
    throw new Error(
      `Port "${port.name}" has hairpin mode ${onOff(settings.hairpin)} and isolation ${onOff(settings.isolated)}, where ${onOff(hairpinMode)} and ${onOff(portIsolation)} are wanted`,
    );
  if (usesVlans(vlans)) checkVlans(host, port, vlans);
  return { bridge, port };
}

function hasIpam(call: BridgeCall): boolean {
  return Boolean(call.config.ipam?.type);
}

function bridgeName(call: BridgeCall): string {
  return call.config.bridge || 'cni0';
}

function usesVlans({ vlan, trunk }: VlanPort): boolean {
  return vlan > 0 || trunk.length > 0;
}

function onOff(value: boolean): string {
  return value ? 'on' : 'off';
}
