/** What the plugins for Open vSwitch share: the keys for its database, and the connection to it. */

import { defaultAddress } from '../ovsdb/address.ts';
import { OvsdbAbsentError, OvsdbConnection } from '../ovsdb/database.ts';
import { findBridge } from '../ovsdb/ports.ts';
import type { Call } from './call.ts';
import { withFlatFile } from './flat-file.ts';
import type { Interface, Result } from './result.ts';
import { type InferShape, type ObjectSchema, type Shape, string } from './schema.ts';

/** Keys of every plugin for Open vSwitch. */
export const databaseKeys = {
  socket_file: string({
    description: `Where the database listens, as in "tcp:192.0.2.1:6640"; "${defaultAddress}" by default.`,
  }),
  configuration_path: string({ description: 'File with further keys, which count less than those here.' }),
};

type DatabaseKeys = InferShape<typeof databaseKeys>;

/** Where ovs-cni looks for a file with further keys, after the one that "configuration_path" names. */
const places = ['/etc/kubernetes/cni/net.d/ovs.d/ovs.conf', '/etc/cni/net.d/ovs.d/ovs.conf'];

/** Adds the keys of the flat file of ovs-cni to a configuration. @throws as {@link withFlatFile}. */
export function withSharedKeys<S extends Shape>(
  own: InferShape<S> & DatabaseKeys,
  schema: ObjectSchema<S>,
): InferShape<S> & DatabaseKeys {
  return withFlatFile(own, schema, places);
}

/** Connects to the database. @throws as {@link OvsdbConnection.open}. */
export function openDatabase({ socket_file }: DatabaseKeys): Promise<OvsdbConnection> {
  return OvsdbConnection.open(socket_file || defaultAddress);
}

/** Does work on the database if it can be reached. DEL, for one, must succeed without it. */
export async function whereReachable(
  call: Call,
  settings: DatabaseKeys,
  work: (db: OvsdbConnection) => Promise<void>,
): Promise<void> {
  let db: OvsdbConnection;
  try {
    db = await openDatabase(settings);
  } catch (error) {
    if (!(error instanceof OvsdbAbsentError)) throw error;
    call.warn(`${error.message}. What remains there is removed by the next DEL or GC that reaches it`);
    return;
  }
  using _ = db;
  await work(db);
}

/** The host's interface in a result, which gives the port its name. */
export function hostInterface(result: Result | undefined): Interface | undefined {
  return result?.interfaces.find(({ sandbox }) => !sandbox);
}

/** @throws Error when there is no bridge of that name. */
export async function requireBridge(
  db: OvsdbConnection,
  name: string,
): Promise<{ uuid: string; ports: readonly string[] }> {
  const bridge = await findBridge(db, name);
  if (bridge) return bridge;
  throw new Error(
    `Open vSwitch has no bridge "${name}". Create it with "ovs-vsctl add-br ${name}", or correct "bridge"`,
  );
}
