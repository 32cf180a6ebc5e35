/** Mirrors: copies of frames of some ports, sent to another. Source: ovs-vswitchd.conf.db(5), "Mirror". */

import type { Operation, OvsdbConnection } from './database.ts';
import { isRow } from './ports.ts';
import {
  map,
  namedUuid,
  type OvsdbValue,
  type Row,
  readMap,
  readText,
  readUuids,
  set,
  uuid,
} from './values.ts';

const owner = 'ovs-cni.network.kubevirt.io';

/** The columns of a mirror that hold ports, by the ports' role. */
const columns = {
  /** Frames that come from the pod are copied. */
  source: 'select_src_port',
  /** Frames that go to the pod are copied. */
  destination: 'select_dst_port',
  /** Copies go to the pod. */
  output: 'output_port',
} as const;

export type MirrorRole = keyof typeof columns;
const roles = Object.keys(columns) as MirrorRole[];

/** A mirror as the database has it: its ports, by their UUIDs. */
export interface Mirror extends Readonly<Record<MirrorRole, readonly string[]>> {
  readonly uuid: string;
  readonly name: string;
  /** Whether it was made for pods, and is removed again with the last of them. */
  readonly isOfPods: boolean;
}

/** A port's roles in a mirror. */
export interface MirrorPart {
  readonly name: string;
  readonly roles: readonly MirrorRole[];
}

/** A bridge, and the mirrors on it, whoever has made them: a pod can join any of them, by name. */
export interface MirroredBridge {
  readonly uuid: string;
  readonly mirrors: readonly Mirror[];
}

/** @returns undefined when there is no bridge of that name. */
export async function findMirrors(db: OvsdbConnection, bridge: string): Promise<MirroredBridge | undefined> {
  const [row] = await db.select('Bridge', [['name', '==', bridge]], ['_uuid', 'mirrors']);
  if (!row) return undefined;
  const ids = readUuids(row.mirrors);
  const rows = await db.select('Mirror', [], ['_uuid', 'name', 'external_ids', ...Object.values(columns)]);
  const mirrors = rows.map(readMirror).filter(({ uuid }) => ids.includes(uuid));
  return { uuid: readUuids(row._uuid)[0]!, mirrors };
}

/**
 * The operations that give a port its roles in the mirrors of a bridge, which are created if missing. They
 * are refused as timed out when the bridge's mirrors have changed meanwhile.
 */
export function joinMirrors(
  { uuid: bridge, mirrors }: MirroredBridge,
  port: string,
  parts: readonly MirrorPart[],
): Operation[] {
  const find = (name: string) => mirrors.find((one) => one.name === name);
  const unchangedBridge = waitFor('Bridge', bridge, { mirrors: set(mirrors.map((one) => uuid(one.uuid))) });
  const joined = parts.flatMap(({ name, roles }, i) => {
    const present = find(name);
    const row = Object.fromEntries(roles.map((role) => [columns[role], uuid(port)]));
    if (present)
      return [
        unchanged(present),
        {
          op: 'mutate',
          table: 'Mirror',
          where: [isRow(present.uuid)],
          mutations: Object.entries(row).map(([column, value]) => [column, 'insert', value]),
        },
      ];
    const id = `new_mirror_${i}`;
    return [
      {
        op: 'insert',
        table: 'Mirror',
        'uuid-name': id,
        row: { name, external_ids: map({ owner }), ...row },
      },
      {
        op: 'mutate',
        table: 'Bridge',
        where: [isRow(bridge)],
        mutations: [['mirrors', 'insert', namedUuid(id)]],
      },
    ];
  });
  return parts.every(({ name }) => find(name)) ? joined : [unchangedBridge, ...joined];
}

/**
 * The operations that take a port out of mirrors, and remove those of pods that have no port any more. They
 * are refused as timed out when the mirrors have changed meanwhile.
 * @param port undefined to remove only mirrors without ports.
 */
export function leaveMirrors(
  { uuid: bridge, mirrors }: MirroredBridge,
  port: string | undefined,
  parts: readonly MirrorPart[],
): Operation[] {
  return mirrors.flatMap((mirror) => {
    const own = parts.find(({ name }) => name === mirror.name)?.roles ?? [];
    const left = own.filter((role) => port !== undefined && mirror[role].includes(port));
    const isEmpty = roles.every((role) => mirror[role].every((one) => left.includes(role) && one === port));
    if (isEmpty && mirror.isOfPods)
      return [
        unchanged(mirror),
        {
          op: 'mutate',
          table: 'Bridge',
          where: [isRow(bridge)],
          mutations: [['mirrors', 'delete', uuid(mirror.uuid)]],
        },
        { op: 'delete', table: 'Mirror', where: [isRow(mirror.uuid)] },
      ];
    if (left.length === 0) return [];
    return [
      unchanged(mirror),
      {
        op: 'mutate',
        table: 'Mirror',
        where: [isRow(mirror.uuid)],
        mutations: left.map((role) => [columns[role], 'delete', uuid(port!)]),
      },
    ];
  });
}

function unchanged(mirror: Mirror): Operation {
  const row = Object.fromEntries(roles.map((role) => [columns[role], set(mirror[role].map(uuid))]));
  return waitFor('Mirror', mirror.uuid, row);
}

/** Refuses the transaction when a row is not as it was read. */
function waitFor(table: string, id: string, row: Readonly<Record<string, OvsdbValue>>): Operation {
  const columns = Object.keys(row);
  return { op: 'wait', timeout: 0, table, where: [isRow(id)], columns, until: '==', rows: [row] };
}

function readMirror(row: Row): Mirror {
  return {
    uuid: readUuids(row._uuid)[0] ?? '',
    name: readText(row.name),
    isOfPods: readMap(row.external_ids).owner === owner,
    source: readUuids(row[columns.source]),
    destination: readUuids(row[columns.destination]),
    output: readUuids(row[columns.output]),
  };
}
