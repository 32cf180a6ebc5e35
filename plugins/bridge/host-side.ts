/** What the bridge plugin sets up on the host: on ADD, and again where others have removed it. */

import { enableForwarding } from '../../lib/cni/interface.ts';
import type { Interface, IPConfig } from '../../lib/cni/result.ts';
import { Prefix } from '../../lib/ip.ts';
import { ensureGatewayAddress } from '../../lib/kernel/bridge.ts';
import { bridgePortSettings, setBridgePort } from '../../lib/kernel/bridge-port.ts';
import { assignVlans, ensureVlanInterface } from '../../lib/kernel/bridge-vlan.ts';
import type { Link } from '../../lib/kernel/link.ts';
import { type BridgeCall, isGateway, usesVlans, vlansOf } from './config.ts';

/** Hairpin mode, isolation and VLANs of the container's port. */
export function configurePort({ host, config }: BridgeCall, port: Link): void {
  const { hairpinMode = false, portIsolation = false } = config;
  const { hairpin = false, isolated = false } = bridgePortSettings(port) ?? {};
  const changes = {
    ...(hairpin !== hairpinMode && { hairpin: hairpinMode }),
    ...(isolated !== portIsolation && { isolated: portIsolation }),
  };
  if (Object.keys(changes).length > 0) host.execute(setBridgePort(port.index, changes, port.name));
  const vlans = vlansOf(config);
  if (usesVlans(vlans)) assignVlans(host, port, vlans);
}

/**
 * Puts the gateways' addresses on the bridge, or on an interface in the container's VLAN.
 * @returns the interface that was created for that.
 */
export function serveGateways(call: BridgeCall, bridge: Link, ips: readonly IPConfig[]): Interface[] {
  const { forceAddress = false } = call.config;
  if (!isGateway(call.config) || ips.length === 0) return [];
  const vlans = vlansOf(call.config);
  const link = vlans.vlan
    ? ensureVlanInterface(call.host, bridge, vlans, (message) => call.warn(message))
    : bridge;
  for (const { address, gateway } of ips)
    if (gateway) ensureGatewayAddress(call.host, link, new Prefix(gateway, address.length), forceAddress);
  enableForwarding(ips);
  return vlans.vlan ? [{ name: link.name, mac: link.mac }] : [];
}
