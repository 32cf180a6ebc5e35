/** How the bridge plugin is configured. */

import type { Call } from '../../lib/cni/call.ts';
import type { NetConf } from '../../lib/cni/config.ts';
import { masqueradeShape } from '../../lib/cni/masquerade-shape.ts';
import { array, boolean, type InferShape, integer, object, string } from '../../lib/cni/schema.ts';
import type { BridgeOptions } from '../../lib/kernel/bridge.ts';
import { resolveTrunk, type VlanPort } from '../../lib/kernel/bridge-vlan.ts';

const vid = (description: string, min = 1) => integer({ min, max: 4094, description });

export const config = {
  ...masqueradeShape,
  bridge: string({ description: 'Name of the bridge, made if it does not exist; "cni0" by default.' }),
  isGateway: boolean({ description: 'Give the bridge the gateway address of the subnet.' }),
  isDefaultGateway: boolean({ description: 'Besides, make it the default route of the container.' }),
  forceAddress: boolean({
    description: 'Replace an address of the bridge that is in the way of the gateway.',
  }),
  mtu: integer({ max: 65535, description: 'MTU in bytes; 0 leaves it to the kernel.' }),
  hairpinMode: boolean({
    description: 'Let a container reach itself through the bridge, say by a port of the host.',
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
};

export type Config = InferShape<typeof config> & Pick<NetConf, 'ipam'>;
export type BridgeCall = Call<Config>;

/** Name of the bridge. */
export function bridgeName(call: BridgeCall): string {
  return call.config.bridge || 'cni0';
}

/** Whether the bridge is a gateway: as default gateway it always is, whatever "isGateway" says. */
export function isGateway({ isGateway = false, isDefaultGateway = false }: Config): boolean {
  return isGateway || isDefaultGateway;
}

/** How the bridge is made, if it does not exist. */
export function bridgeSettings(config: Config): BridgeOptions {
  const { mtu = 0, promiscMode: promisc = false } = config;
  return { mtu, promisc, vlanFiltering: usesVlans(vlansOf(config)) };
}

/** The VLANs of the container's port. */
export function vlansOf({ vlan = 0, vlanTrunk = [], preserveDefaultVlan = false }: Config): VlanPort {
  return { vlan, trunk: resolveTrunk(vlanTrunk), preserveDefaultVlan };
}

/** True when ports of the bridge need VLANs. */
export function usesVlans({ vlan, trunk }: VlanPort): boolean {
  return vlan > 0 || trunk.length > 0;
}
