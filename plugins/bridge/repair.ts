/** Finds and restores what others may have removed from the host's side of a bridge attachment. */

import { requireHostEnd } from '../../lib/cni/host-end.ts';
import { forwardingRepairs, linkLocalRepairs, missingRoutes, upRepairs } from '../../lib/cni/host-repairs.ts';
import { type Repair, requirePrevResult } from '../../lib/cni/plugin.ts';
import type { Result } from '../../lib/cni/result.ts';
import { addMacSpoofCheck, checkMacSpoofCheck } from '../../lib/firewall/macspoof.ts';
import { Prefix } from '../../lib/ip.ts';
import { listAddresses } from '../../lib/kernel/address.ts';
import { ensureBridge, ensureGatewayAddress, refuseOtherKind } from '../../lib/kernel/bridge.ts';
import { bridgePortSettings } from '../../lib/kernel/bridge-port.ts';
import { checkVlans, isJoined, joinVlan, vlanPort } from '../../lib/kernel/bridge-vlan.ts';
import { getLink, type Link, requireLink, setLink } from '../../lib/kernel/link.ts';
import { type BridgeCall, bridgeName, bridgeSettings, isGateway, usesVlans, vlansOf } from './config.ts';
import { configurePort, serveGateways } from './host-side.ts';

/** @throws Error when the container's port is gone, or the interface named as the bridge is no bridge. */
export function repair(call: BridgeCall): Repair[] {
  const result = requirePrevResult(call);
  const port = requireHostEnd(call);
  return [
    ...bridgeRepairs(call, result),
    ...portRepairs(call, port),
    ...gatewayRepairs(call, result),
    ...macSpoofRepairs(call, port, result),
  ];
}

/** The bridge itself, and its state: up, and promiscuous if configured. */
function bridgeRepairs(call: BridgeCall, result: Result): Repair[] {
  const name = bridgeName(call);
  const bridge = getLink(call.host, name);
  const ensure = () => ensureBridge(call, name, bridgeSettings(call.config));
  if (!bridge) {
    const restore = () => {
      ensure();
      restoreMac(call, name, result);
    };
    return [{ what: `bridge "${name}"`, restore }];
  }
  refuseOtherKind(bridge);
  const lacksPromisc = call.config.promiscMode && !bridge.promisc;
  if (bridge.up && !lacksPromisc) return [];
  const what = bridge.up ? `promiscuous mode of bridge "${name}"` : `state "up" of bridge "${name}"`;
  return [{ what, restore: () => void ensure() }];
}

/** Gives a re-created interface the MAC address that containers know their gateway by. */
function restoreMac({ host }: BridgeCall, name: string, { interfaces }: Result): void {
  const mac = interfaces.find((one) => one.name === name && !one.sandbox)?.mac;
  if (mac) host.execute(setLink(requireLink(host, name).index, { mac }, name));
}

/** The container's port, and how the bridge treats it. */
function portRepairs(call: BridgeCall, port: Link): Repair[] {
  const { host } = call;
  const name = bridgeName(call);
  const bridge = getLink(host, name);
  if (!bridge || port.master !== bridge.index) {
    const restore = () => {
      const { index: master } = requireLink(host, name);
      host.execute(setLink(port.index, { master, up: true }, port.name));
      configurePort(call, requireLink(host, port.index));
    };
    return [{ what: `port "${port.name}" of bridge "${name}"`, restore }];
  }
  if (isConfigured(call, port)) return upRepairs(host, port);
  const what = `settings of port "${port.name}" of bridge "${name}"`;
  return [...upRepairs(host, port), { what, restore: () => configurePort(call, port) }];
}

function isConfigured({ host, config }: BridgeCall, port: Link): boolean {
  const { hairpinMode = false, portIsolation = false } = config;
  const { hairpin, isolated } = bridgePortSettings(port) ?? {};
  if (hairpin !== hairpinMode || isolated !== portIsolation) return false;
  const vlans = vlansOf(config);
  return !usesVlans(vlans) || hasVlans(() => checkVlans(host, port, vlans));
}

function hasVlans(check: () => void): boolean {
  try {
    check();
    return true;
  } catch {
    return false;
  }
}

/** The gateways' addresses, the routes to their subnets, and forwarding. */
function gatewayRepairs(call: BridgeCall, result: Result): Repair[] {
  const { ips } = result;
  const { host, config } = call;
  if (!isGateway(config) || ips.length === 0) return [];
  const { vlan } = vlansOf(config);
  const name = vlan ? `${bridgeName(call)}.${vlan}` : bridgeName(call);
  const link = getLink(host, name);
  const restoreAll = () => {
    serveGateways(call, requireLink(host, bridgeName(call)), ips);
    restoreMac(call, name, result);
  };
  if (!link && vlan)
    return [{ what: `interface "${name}" with the gateway's addresses`, restore: restoreAll }];
  const present = link ? listAddresses(host, link.index).map(({ prefix }) => prefix) : [];
  const wanted = ips.flatMap(({ address, gateway }) =>
    gateway ? [new Prefix(gateway, address.length)] : [],
  );
  const missing = wanted.filter((prefix) => !present.some((one) => one.equals(prefix)));
  return [
    ...(link && vlan ? vlanRepairs(call, link) : []),
    ...missing.map((prefix) => ({
      what: `address ${prefix} of interface "${name}"`,
      restore: () => {
        ensureGatewayAddress(host, requireLink(host, name), prefix, config.forceAddress ?? false);
        // If all gateway addresses were missing, only these containers can know the MAC address.
        if (missing.length === wanted.length) restoreMac(call, name, result);
      },
    })),
    ...(link?.up
      ? missingRoutes(
          host,
          link,
          wanted.filter((prefix) => !missing.includes(prefix)),
        )
      : []),
    ...(link && wanted.some(({ family }) => family === 6) ? linkLocalRepairs(host, link) : []),
    ...forwardingRepairs(ips),
  ];
}

/** The host's interface in the container's VLAN, and its peer, a port of the bridge. */
function vlanRepairs(call: BridgeCall, link: Link): Repair[] {
  const { host, config } = call;
  const name = bridgeName(call);
  const port = vlanPort(host, link);
  const bridge = getLink(host, name);
  const vlans = vlansOf(config);
  if (!port || (bridge && isJoined(host, bridge, port, vlans.vlan))) return upRepairs(host, link);
  const restore = () => joinVlan(host, requireLink(host, name), port, vlans);
  return [{ what: `port "${port.name}" of bridge "${name}"`, restore }, ...upRepairs(host, link)];
}

/** The MAC spoofing check of the container's port. */
function macSpoofRepairs(call: BridgeCall, port: Link, { interfaces }: Result): Repair[] {
  const mac = interfaces.find(({ name, sandbox }) => name === call.ifname && sandbox)?.mac;
  if (!call.config.macspoofchk || !mac) return [];
  try {
    checkMacSpoofCheck(call.attachment, port.name, mac);
    return [];
  } catch {
    const restore = () => addMacSpoofCheck(call.attachment, port.name, mac);
    return [{ what: `check of the MAC address of frames from "${port.name}"`, restore }];
  }
}
