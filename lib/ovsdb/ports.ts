/**
 * Ports that pods have on bridges of Open vSwitch. Each has the external IDs of ovs-cni, so that either
 * plugin can remove the other's ports, and two more, by which a port is found when the path of its namespace
 * is not known.
 */

import { type AttachmentId, attachmentKey } from '../attachment.ts';
import type { Condition, Operation, OvsdbConnection } from './database.ts';
import {
  map,
  namedUuid,
  type OvsdbValue,
  type Row,
  readMap,
  readSet,
  readText,
  readUuids,
  set,
  uuid,
} from './values.ts';

const owner = 'ovs-cni.network.kubevirt.io';

/** How frames of a port are tagged. */
export interface PortVlans {
  /** VLAN of untagged frames. */
  readonly tag: number | undefined;
  /** VLANs whose tagged frames pass; when there is no tag either, an empty list means all VLANs. */
  readonly trunks: readonly number[];
}

/** A pod's port as it should be. */
export interface WantedPort extends PortVlans {
  readonly attachment: AttachmentId;
  /** Name of the host's interface, and of the port. */
  readonly name: string;
  readonly netns: string;
  /** Of the pod, in Kubernetes; "" outside it. */
  readonly podUid: string;
  /** Type of the interface; "" for one of the kernel. */
  readonly type: string;
  readonly ofportRequest: number | undefined;
  /** Name of the logical port in OVN. */
  readonly ovnPort: string | undefined;
}

/** A port as the database has it. */
export interface Port {
  readonly uuid: string;
  readonly name: string;
  readonly interfaces: readonly string[];
  readonly externalIds: Readonly<Record<string, string>>;
  readonly tag: number | undefined;
  readonly trunks: readonly number[];
  readonly vlanMode: string;
}

/** An interface as the database has it. */
export interface OvsInterface {
  /** Why Open vSwitch cannot use it; "" when it can, or has not looked yet. */
  readonly error: string;
  /** Its number in OpenFlow; undefined as long as Open vSwitch has not started to use it. */
  readonly ofport: number | undefined;
}

/** The UUID of a bridge, and the ports on it. @returns undefined when there is none of that name. */
export async function findBridge(
  db: OvsdbConnection,
  name: string,
): Promise<{ uuid: string; ports: readonly string[] } | undefined> {
  const [row] = await db.select('Bridge', [['name', '==', name]], ['_uuid', 'ports']);
  const [found] = row ? readUuids(row._uuid) : [];
  return found ? { uuid: found, ports: readUuids(row!.ports) } : undefined;
}

/** Ports of pods, on whichever bridge. */
export async function listPodPorts(db: OvsdbConnection): Promise<Port[]> {
  return (await db.select('Port', [['external_ids', 'includes', map({ owner })]], portColumns)).map(readPort);
}

/** The port of an interface of the host. */
export async function findPort(db: OvsdbConnection, name: string): Promise<Port | undefined> {
  const [row] = await db.select('Port', [['name', '==', name]], portColumns);
  return row && readPort(row);
}

/** The interface of a port. */
export async function findInterface(db: OvsdbConnection, name: string): Promise<OvsInterface | undefined> {
  const [row] = await db.select('Interface', [['name', '==', name]], ['error', 'ofport']);
  if (!row) return undefined;
  const [ofport] = readSet(row.ofport);
  return {
    error: readSet(row.error).map(readText).join(),
    ofport: typeof ofport === 'number' ? ofport : undefined,
  };
}

/** Names of the interfaces that are links of the host; those of other types need not be. */
export async function listSystemInterfaces(db: OvsdbConnection): Promise<string[]> {
  const rows = await db.select('Interface', [], ['name', 'type']);
  return rows.flatMap(({ name, type }) => (type === '' || type === 'system' ? [readText(name)] : []));
}

/** The operations that put a port on a bridge. */
export function addPort(bridge: string, wanted: WantedPort): Operation[] {
  const { name, attachment, netns, podUid, type, ofportRequest, ovnPort } = wanted;
  const { network, containerId, ifname } = attachment;
  const externalIds = {
    ...{ contPodUid: podUid, contNetns: netns, contIface: ifname, owner },
    ...{ contID: containerId, contNetwork: network },
  };
  return [
    {
      op: 'insert',
      table: 'Interface',
      'uuid-name': 'new_interface',
      row: {
        name,
        ...(type && { type }),
        ...(ofportRequest !== undefined && { ofport_request: ofportRequest }),
        ...(ovnPort && { external_ids: map({ 'iface-id': ovnPort }) }),
      },
    },
    {
      op: 'insert',
      table: 'Port',
      'uuid-name': 'new_port',
      row: {
        name,
        interfaces: namedUuid('new_interface'),
        external_ids: map(externalIds),
        ...vlanColumns(wanted),
      },
    },
    {
      op: 'mutate',
      table: 'Bridge',
      where: [isRow(bridge)],
      mutations: [['ports', 'insert', namedUuid('new_port')]],
    },
  ];
}

/** The operations that remove ports from whichever bridge they are on. */
export function removePorts(ports: readonly Port[]): Operation[] {
  return ports.flatMap((port) => [
    {
      op: 'mutate',
      table: 'Bridge',
      where: [['ports', 'includes', uuid(port.uuid)]],
      mutations: [['ports', 'delete', uuid(port.uuid)]],
    },
    { op: 'delete', table: 'Port', where: [isRow(port.uuid)] },
    ...port.interfaces.map((one) => ({ op: 'delete', table: 'Interface', where: [isRow(one)] })),
  ]);
}

/** Tells whether a port is an attachment's. @param netns of its sandbox, "" when it is not known. */
export function isPortOf(port: Port, attachment: AttachmentId, netns: string): boolean {
  const own = attachmentOf(port);
  if (own) return attachmentKey(own) === attachmentKey(attachment);
  // One that ovs-cni made.
  return (
    netns !== '' && port.externalIds.contNetns === netns && port.externalIds.contIface === attachment.ifname
  );
}

/** The attachment that a port belongs to. @returns undefined for a port that ovs-cni made. */
export function attachmentOf({ externalIds }: Port): AttachmentId | undefined {
  const { contID: containerId, contNetwork: network, contIface: ifname } = externalIds;
  return containerId && network && ifname ? { containerId, network, ifname } : undefined;
}

/** The columns that say how a port's frames are tagged, as in ovs-cni: trunks take precedence over a tag. */
export function vlanColumns({ tag, trunks }: PortVlans): {
  vlan_mode: string;
  tag?: number;
  trunks?: OvsdbValue;
} {
  if (tag !== undefined && trunks.length === 0) return { vlan_mode: 'access', tag };
  return { vlan_mode: 'trunk', ...(trunks.length > 0 && { trunks: set(trunks) }) };
}

const portColumns = ['_uuid', 'name', 'interfaces', 'external_ids', 'tag', 'trunks', 'vlan_mode'];

function readPort(row: Row): Port {
  const numbers = (value: unknown) => readSet(value).filter((one) => typeof one === 'number');
  return {
    uuid: readUuids(row._uuid)[0] ?? '',
    name: readText(row.name),
    interfaces: readUuids(row.interfaces),
    externalIds: readMap(row.external_ids),
    tag: numbers(row.tag)[0],
    trunks: numbers(row.trunks),
    vlanMode: readSet(row.vlan_mode).map(readText).join(),
  };
}

/** The condition that a row has this UUID. */
export function isRow(id: string): Condition {
  return ['_uuid', '==', uuid(id)];
}
