/** bridge: connects a sandbox to a bridge on the host. */

import { refuse } from '../lib/cni/config-checks.ts';
import { gatewayOf } from '../lib/cni/interface.ts';
import { ifnameProblem } from '../lib/cni/invocation.ts';
import { type Attached, defineMainPlugin } from '../lib/cni/main-plugin.ts';
import { requirePrevResult } from '../lib/cni/plugin.ts';
import { removeVethPair } from '../lib/cni/remove-interface.ts';
import { requestedMac } from '../lib/cni/requested-mac.ts';
import type { Result } from '../lib/cni/result.ts';
import { runAll } from '../lib/cni/steps.ts';
import { Prefix } from '../lib/ip.ts';
import { ensureBridge, refuseOtherKind, retryIfGone } from '../lib/kernel/bridge.ts';
import { bridgePortSettings, waitUntilUp } from '../lib/kernel/bridge-port.ts';
import {
  checkVlanInterface,
  checkVlans,
  deleteUnusedVlanInterface,
  resolveTrunk,
} from '../lib/kernel/bridge-vlan.ts';
import { getLink, type Link, requireLink, setLink } from '../lib/kernel/link.ts';
import { createVethPair, type VethPair } from '../lib/kernel/veth.ts';
import {
  type BridgeCall,
  bridgeName,
  bridgeSettings,
  type Config,
  config,
  isGateway,
  usesVlans,
  vlansOf,
} from './bridge/config.ts';
import { configurePort, serveGateways } from './bridge/host-side.ts';

/** What ADD has made. */
interface BridgePort extends Attached, VethPair {
  bridge: Link;
}

export const plugin = defineMainPlugin({
  name: 'bridge',
  summary: 'Connects a sandbox to a bridge on the host.',
  kind: 'veth',
  config,
  explain,
  validate,
  create,
  options: ({ config: { disableContainerInterface = false, enabledad = false } }) => ({
    keepDown: disableContainerInterface,
    detectDuplicates: enabledad,
  }),
  complete,
  connect,

  async remove(call) {
    await runAll(
      call,
      () => removeVethPair(call),
      async () => (await macSpoofCheck(call))?.deleteMacSpoofCheck(call.attachment),
    );
  },

  async check(call, { link }) {
    const { bridge, port } = checkPort(call);
    if (port.parent !== link.index)
      throw new Error(
        `Port "${port.name}" of bridge "${bridge.name}" is not the other end of "${call.ifname}". Delete the container and add it again`,
      );
    const { vlan } = vlansOf(call.config);
    if (vlan && isGateway(call.config) && requirePrevResult(call).ips.length > 0)
      checkVlanInterface(call.host, bridge, vlan);
    (await macSpoofCheck(call))?.checkMacSpoofCheck(call.attachment, port.name, link.mac, call.programs.once);
  },

  repair: async (call) => (await import('./bridge/repair.ts')).repair(call),

  async gc(call) {
    (await macSpoofCheck(call))?.collectMacSpoofChecks((port) => getLink(call.host, port) !== undefined);
  },
});

function explain(config: Config): string[] {
  const { bridge = 'cni0', isDefaultGateway } = config;
  const when = (condition: unknown, step: string) => (condition ? step : '');
  return [
    `Creates bridge "${bridge}" unless it exists, and brings it up`,
    `Creates a veth pair: one end in the container, the other a port of "${bridge}"`,
    when(config.hairpinMode, 'Lets the container reach itself through the bridge (hairpin mode)'),
    when(config.portIsolation, 'Keeps it from other isolated ports of the bridge'),
    when(config.promiscMode, 'Puts the bridge into promiscuous mode'),
    when(config.vlan, `Puts the port into VLAN ${config.vlan}`),
    when(config.vlanTrunk, `Passes tagged VLANs: ${JSON.stringify(config.vlanTrunk)}`),
    when(config.macspoofchk, 'Drops frames whose source MAC address is not its own'),
    when(isGateway(config), `Gives "${bridge}" the gateway address, and turns forwarding on`),
    when(isDefaultGateway, 'Makes it the default route of the container'),
    when(config.ipam?.type, 'Announces the addresses on the bridge'),
  ];
}

/** Refuses names that no bridge can have, and settings that contradict one another. */
function validate(config: Config): void {
  const { bridge, hairpinMode, promiscMode, disableContainerInterface, vlanTrunk = [], ipam } = config;
  const problem = bridge && ifnameProblem(bridge);
  refuse(
    problem && `"bridge" is "${bridge.slice(0, 80)}", which ${problem}. Use a name such as "cni0"`,
    hairpinMode &&
      promiscMode &&
      '"hairpinMode" and "promiscMode" are both set, which duplicates frames. Set only one of them',
    disableContainerInterface &&
      ipam?.type &&
      '"disableContainerInterface" is set, so the container can have no address. Remove "ipam", or that key',
  );
  resolveTrunk(vlanTrunk);
}

/** Makes the container a port of the bridge. */
function create(call: BridgeCall): BridgePort {
  const { config, host, ifname } = call;
  const { mtu = 0 } = config;
  const mac = requestedMac(config.runtimeConfig?.mac, config.args?.cni?.mac, call.args(['MAC']).MAC);
  const join = () => {
    const bridge = ensureBridge(call, bridgeName(call), bridgeSettings(config));
    // Undone once the container's port, which is in the VLAN too, is gone.
    undoVlanInterface(call, bridge);
    const pair = createVethPair(call, { name: ifname, mtu, ...(mac && { mac }) }, { master: bridge.index });
    return { ...pair, bridge };
  };
  const port = retryIfGone(join);
  const { bridge, hostLink, sandboxLink } = port;
  configurePort(call, hostLink);
  const interfaces = [
    // Read again: the bridge takes the lowest MAC address of its ports unless its own is pinned.
    { name: bridge.name, mac: requireLink(host, bridge.index).mac },
    { name: hostLink.name, mac: hostLink.mac },
    { name: sandboxLink.name, mac: sandboxLink.mac, sandbox: call.netns },
  ];
  return { ...port, interfaces, link: sandboxLink };
}

/** Has a failing ADD delete the gateway's interface in the VLAN, unless it was there before. */
function undoVlanInterface(call: BridgeCall, bridge: Link): void {
  const { host, config } = call;
  const { vlan } = vlansOf(config);
  const name = `${bridge.name}.${vlan}`;
  if (!vlan || !isGateway(config) || getLink(host, name)) return;
  call.undo(`delete interface "${name}", if nobody uses it`, () =>
    deleteUnusedVlanInterface(host, bridge.name, vlan),
  );
}

/** Adds the gateways and the default route that the bridge is to serve. */
function complete(call: BridgeCall, result: Result): void {
  if (isGateway(call.config))
    result.ips = result.ips.map((ip) => ({ ...ip, gateway: ip.gateway ?? ip.address.first.plus(1) }));
  if (!call.config.isDefaultGateway) return;
  for (const family of [4, 6] as const) {
    const gateway = gatewayOf(result.ips, family);
    const hasDefault = result.routes.some(({ dst }) => dst.family === family && dst.length === 0);
    if (gateway && !hasDefault)
      result.routes.push({ dst: Prefix.parse(family === 4 ? '0.0.0.0/0' : '::/0'), gw: gateway });
  }
}

/** Checks MAC addresses if asked to, puts the gateways on the bridge, and waits until frames pass. */
async function connect(
  call: BridgeCall,
  { bridge, hostLink, sandboxLink }: BridgePort,
  result: Result,
): Promise<void> {
  // Only once the IPAM plugin has accepted the attachment: a live one with the same IDs has a check, too.
  const spoof = await macSpoofCheck(call);
  if (spoof) {
    // Registered before it is added: it may exist even if the kernel's answer is lost.
    call.undo('delete the MAC address check', () => spoof.deleteMacSpoofCheck(call.attachment));
    spoof.addMacSpoofCheck(call.attachment, hostLink.name, sandboxLink.mac);
  }
  if (call.config.disableContainerInterface) return;
  result.interfaces.push(...serveGateways(call, bridge, result.ips));
  if (!(await waitUntilUp(call.host, hostLink.index)))
    throw new Error(
      `Port "${hostLink.name}" of bridge "${bridge.name}" is still down after ten seconds. Try again, or see in the kernel log why it does not come up`,
    );
  // Announced now that frames pass: what the kernel announced when the link came up was lost. Setting the MAC
  // address, even to what it is, has it announce again; a packet socket of ours would take 25 ms to open and
  // close.
  if (result.ips.length > 0)
    call.sandbox.socket.execute(setLink(sandboxLink.index, { mac: sandboxLink.mac }, call.ifname));
  result.interfaces[0]!.mac = requireLink(call.host, bridge.index).mac;
}

/** The bridge and the container's port on it, as ADD left them. @throws Error for what is different now. */
function checkPort(call: BridgeCall): { bridge: Link; port: Link } {
  const { interfaces } = requirePrevResult(call);
  const vlans = vlansOf(call.config);
  const { hairpinMode = false, portIsolation = false, promiscMode = false } = call.config;
  const name = bridgeName(call);
  const bridge = call.hostLink(name);
  if (!bridge) throw new Error(`Bridge "${name}" is missing. Run "cni repair"`);
  refuseOtherKind(bridge);
  if (!bridge.up) throw new Error(`Bridge "${name}" is down. Bring it up with "ip link set ${name} up"`);
  if (promiscMode && !bridge.promisc)
    throw new Error(`Bridge "${name}" is not in promiscuous mode. Run "cni repair"`);
  const entry = interfaces.find((one) => !one.sandbox && one.name !== name && one.name.startsWith('veth'));
  if (!entry)
    throw new Error(
      `"prevResult" names no port of bridge "${name}". Pass the result of this attachment's ADD`,
    );
  const port = call.hostLink(entry.name);
  if (!port)
    throw new Error(
      `Port "${entry.name}" of bridge "${name}" is missing. Delete the container and add it again`,
    );
  if (port.kind !== 'veth' || port.master !== bridge.index)
    throw new Error(
      `Interface "${entry.name}" is not a port of bridge "${name}". Add it with "ip link set ${entry.name} master ${name}"`,
    );
  if (entry.mac && entry.mac !== port.mac)
    throw new Error(
      `Port "${entry.name}" has MAC address ${port.mac}, but should have ${entry.mac}. Set it with "ip link set ${entry.name} address ${entry.mac}"`,
    );
  const settings = bridgePortSettings(port);
  if (settings && (settings.hairpin !== hairpinMode || settings.isolated !== portIsolation))
    throw new Error(
      `Port "${port.name}" has hairpin mode ${onOff(settings.hairpin)} and isolation ${onOff(settings.isolated)}, but should have ${onOff(hairpinMode)} and ${onOff(portIsolation)}. Run "cni repair"`,
    );
  if (usesVlans(vlans)) checkVlans(call.host, port, vlans);
  return { bridge, port };
}

/** The check of MAC addresses, which is loaded only for networks that ask for it. */
async function macSpoofCheck({ config }: BridgeCall) {
  return config.macspoofchk ? await import('../lib/firewall/macspoof.ts') : undefined;
}

function onOff(value: boolean): string {
  return value ? 'on' : 'off';
}
