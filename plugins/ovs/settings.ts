/** What the ovs plugin is told: by its configuration, by the flat file of ovs-cni, and by the runtime. */

import type { Call } from '../../lib/cni/call.ts';
import { refuse } from '../../lib/cni/config-checks.ts';
import { ifnameProblem } from '../../lib/cni/invocation.ts';
import { databaseKeys, withSharedKeys } from '../../lib/cni/open-vswitch.ts';
import { requestedMac } from '../../lib/cni/requested-mac.ts';
import { array, type InferShape, integer, json, object, string } from '../../lib/cni/schema.ts';
import { parseAddress } from '../../lib/ovsdb/address.ts';
import type { PortVlans } from '../../lib/ovsdb/ports.ts';

/** The database takes 4095 as well. Source: ovs-vswitchd.conf.db(5), "Port". */
const vid = (description: string) => integer({ max: 4095, description });

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
    max: 65279,
    description: 'Number that the port is to have in OpenFlow; 0 for any.',
  }),
  interface_type: string({
    description: 'Type of the interface in Open vSwitch; one of the kernel by default.',
  }),
  ...databaseKeys,
  link_state_check_retries: integer({ description: 'How often the interval below is waited; 5 by default.' }),
  link_state_check_interval: integer({ description: 'Milliseconds; 600 by default.' }),
  args: object({
    cni: object({
      mac: json({ description: 'MAC address, if it is a string.' }),
      ovnPort: json({ description: 'Name of the logical port of OVN, if it is a string.' }),
    }),
  }),
};

export type Config = InferShape<typeof config>;
export type OvsCall = Call<Config>;

/** Limit in milliseconds, whatever number of retries is configured. */
const longestPatience = 60_000;

/** Refuses a configuration with which no ADD can succeed. @throws Error */
export function validate(config: Config): void {
  const { bridge, deviceID, socket_file } = config;
  const problem = bridge && ifnameProblem(bridge);
  refuse(
    problem && `"bridge" is "${bridge.slice(0, 80)}", which ${problem}. Use a name such as "br1"`,
    deviceID &&
      '"deviceID" asks for a virtual function of a network card, which this plugin does not attach. Take it out, or use "host-device"',
  );
  if (socket_file) parseAddress(socket_file);
  vlansOf(config);
}

/** Messages about keys of trunk entries that have no effect. */
export function ignoredTrunks({ trunk = [] }: Config): string[] {
  return trunk.flatMap((entry, i) =>
    hasRange(entry) || (entry.minID === undefined && entry.maxID === undefined)
      ? []
      : `"trunk[${i}]" is ${JSON.stringify(entry)}, in which "minID" and "maxID" have no effect: both must be set, and not be 0. Set both for a range, or "id" for one VLAN`,
  );
}

/** The configuration, and the keys that the flat file adds to it. */
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
    mac: requestedMac(given.MAC, textOf(mac)),
    ovnPort: given.OvnPort || textOf(ovnPort),
    podUid: given.K8S_POD_UID ?? '',
  };
}

/** @throws Error when none is named. */
export function bridgeOf(call: OvsCall, { bridge }: Config): string {
  if (bridge) return bridge;
  if (argumentsOf(call).ovnPort) return 'br-int';
  throw new Error('No bridge is named. Set "bridge" to one of those that "ovs-vsctl list-br" shows');
}

/** Other plugins use keys of the same names. @returns undefined for a value that is not text, and for "". */
function textOf(value: unknown): string | undefined {
  return typeof value === 'string' && value !== '' ? value : undefined;
}

type TrunkEntry = NonNullable<Config['trunk']>[number];

/**
 * The VLANs of the container's port: its tag, and each VLAN of its trunk once. As in ovs-cni, an entry may
 * have one VLAN, a range, or both; half a range is ignored, see {@link ignoredTrunks}.
 * @throws Error when the trunk names no VLAN, or a range ends before it begins.
 */
export function vlansOf({ vlan, trunk = [] }: Config): PortVlans {
  const trunks = new Set(
    trunk.flatMap((entry, i) => [...rangeOf(entry, i), ...(entry.id === undefined ? [] : [entry.id])]),
  );
  if (trunk.length > 0 && trunks.size === 0)
    throw new Error('"trunk" names no VLAN. Set "id", or "minID" and "maxID"; or take it out');
  return { tag: vlan, trunks: [...trunks].sort((a, b) => a - b) };
}

function rangeOf(entry: TrunkEntry, i: number): number[] {
  if (!hasRange(entry)) return [];
  const { minID, maxID } = entry;
  if (minID > maxID)
    throw new Error(`"trunk[${i}]" is the range ${minID} to ${maxID}. Put the lower one into "minID"`);
  return Array.from({ length: maxID - minID + 1 }, (_, offset) => minID + offset);
}

function hasRange(entry: TrunkEntry): entry is TrunkEntry & { minID: number; maxID: number } {
  return Boolean(entry.minID && entry.maxID);
}

/** How long Open vSwitch may take, in milliseconds. As in ovs-cni, 0 stands for the default. */
export function patienceOf({
  link_state_check_retries: retries,
  link_state_check_interval: interval,
}: Config): number {
  return Math.min((retries || 5) * (interval || 600), longestPatience);
}
