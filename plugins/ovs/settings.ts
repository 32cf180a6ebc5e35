/** What the ovs plugin is told: by its configuration, by the flat file of ovs-cni, and by the runtime. */

import type { Call } from '../../lib/cni/call.ts';
import { refuse } from '../../lib/cni/config-checks.ts';
import { ifnameProblem } from '../../lib/cni/invocation.ts';
import { databaseKeys, withSharedKeys } from '../../lib/cni/open-vswitch.ts';
import { requestedMac } from '../../lib/cni/requested-mac.ts';
import { array, type InferShape, integer, object, string } from '../../lib/cni/schema.ts';
import { resolveTrunk } from '../../lib/kernel/bridge-vlan.ts';
import { parseAddress } from '../../lib/ovsdb/address.ts';
import type { PortVlans } from '../../lib/ovsdb/ports.ts';

const vid = (description: string) => integer({ max: 4094, description });

export const config = {
  bridge: string({
    description: 'Name of the bridge; "br-int" by default where there is a logical port of OVN.',
  }),
  vlan: vid(
    'VLAN of the untagged frames of the container. Without it and "trunk", all frames pass as they are.',
  ),
  trunk: array(
    object({
      id: vid('One VLAN.'),
      minID: vid('First VLAN of a range.'),
      maxID: vid('Last VLAN of a range.'),
    }),
    { description: 'VLANs whose tagged frames the container gets; it counts before "vlan".' },
  ),
  mtu: integer({ max: 65535, description: 'MTU in bytes; 0 leaves it to the kernel.' }),
  deviceID: string({ description: 'PCI address of a virtual function, which this plugin does not take.' }),
  ofport_request: integer({
    min: 1,
    max: 65279,
    description: 'Number that the port is to have in OpenFlow.',
  }),
  interface_type: string({
    description: 'Type of the interface in Open vSwitch; one of the kernel by default.',
  }),
  ...databaseKeys,
  link_state_check_retries: integer({ description: 'How often the interval below is waited; 5 by default.' }),
  link_state_check_interval: integer({ description: 'Milliseconds; 600 by default.' }),
  args: object({ cni: object({ mac: string(), ovnPort: string() }) }),
};

export type Config = InferShape<typeof config>;
export type OvsCall = Call<Config>;

/** However often a configuration says to try, in milliseconds. */
const longestPatience = 60_000;

/** Refuses what no ADD can succeed with. @throws Error */
export function validate(config: Config): void {
  const { bridge, deviceID, socket_file, trunk = [] } = config;
  const problem = bridge && ifnameProblem(bridge);
  refuse(
    problem && `"bridge" is "${bridge.slice(0, 80)}", which ${problem}. Use a name such as "br1"`,
    deviceID &&
      '"deviceID" asks for a virtual function of a network card, which this plugin does not attach. Take it out, or use "host-device"',
  );
  if (socket_file) parseAddress(socket_file);
  resolveTrunk(trunk, 'trunk');
}

/** The configuration, and what the flat file has beside it. */
export function settingsOf(call: OvsCall): Config {
  return withSharedKeys(call.config, object(config));
}

/** What CNI_ARGS and "args" ask for. */
export function argumentsOf(call: OvsCall): {
  mac: string | undefined;
  ovnPort: string | undefined;
  podUid: string;
} {
  const given = call.args([
    'MAC',
    'OvnPort',
    'K8S_POD_UID',
    'K8S_POD_NAME',
    'K8S_POD_NAMESPACE',
    'K8S_POD_INFRA_CONTAINER_ID',
  ]);
  const { mac, ovnPort } = call.config.args?.cni ?? {};
  return {
    mac: requestedMac(given.MAC, mac),
    ovnPort: given.OvnPort || ovnPort || undefined,
    podUid: given.K8S_POD_UID ?? '',
  };
}

/** @throws Error when none is named. */
export function bridgeOf(call: OvsCall, { bridge }: Config): string {
  if (bridge) return bridge;
  if (argumentsOf(call).ovnPort) return 'br-int';
  throw new Error('No bridge is named. Set "bridge" to one of those that "ovs-vsctl list-br" shows');
}

/**
 * The VLANs of the container's port: its tag, and each VLAN of its trunk once.
 * @throws Error when the trunk names no VLAN, or a range that is none.
 */
export function vlansOf({ vlan, trunk = [] }: Config): PortVlans {
  const trunks = resolveTrunk(trunk, 'trunk').flatMap(({ first, last }) =>
    Array.from({ length: last - first + 1 }, (_, i) => first + i),
  );
  return { tag: vlan, trunks: [...new Set(trunks)].sort((a, b) => a - b) };
}

/** How long Open vSwitch may take, in milliseconds. */
export function patienceOf({
  link_state_check_retries: retries = 5,
  link_state_check_interval: interval = 600,
}: Config): number {
  return Math.min(Math.max(retries, 1) * interval, longestPatience);
}
