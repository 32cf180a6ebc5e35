/** What the plugins for Open vSwitch share: the keys that lead to its database, and how it is reached. */

import { errnoOf, fileError, readRegularFile } from '../file.ts';
import { defaultAddress } from '../ovsdb/address.ts';
import { OvsdbAbsentError, OvsdbConnection } from '../ovsdb/database.ts';
import { findBridge } from '../ovsdb/ports.ts';
import type { Call } from './call.ts';
import { parseJson } from './json.ts';
import type { Interface, Result } from './result.ts';
import { decode, type InferShape, isObject, type ObjectSchema, type Shape, string } from './schema.ts';

/** Keys of every plugin for Open vSwitch. */
export const databaseKeys = {
  socket_file: string({
    description: `Where the database listens, as in "tcp:192.0.2.1:6640"; "${defaultAddress}" by default.`,
  }),
  configuration_path: string({ description: 'File with further keys, which count less than those here.' }),
};

type DatabaseKeys = InferShape<typeof databaseKeys>;

/** Where ovs-cni looks for a file with further keys, unless "configuration_path" names one. */
const places = ['/etc/kubernetes/cni/net.d/ovs.d/ovs.conf', '/etc/cni/net.d/ovs.d/ovs.conf'];

/**
 * Adds the keys of the flat file, which all networks of a host share, to a configuration, whose own keys
 * count more.
 * @throws CniError when the file cannot be read; Error when it is not JSON, or a value is wrong.
 */
export function withFlatFile<S extends Shape>(
  own: InferShape<S> & DatabaseKeys,
  schema: ObjectSchema<S>,
): InferShape<S> & DatabaseKeys {
  for (const file of own.configuration_path ? [own.configuration_path] : places) {
    let text: string;
    try {
      text = readRegularFile(file, { followLink: true });
    } catch (error) {
      if (!own.configuration_path && errnoOf(error) === 'ENOENT') continue;
      throw fileError('read', file, error);
    }
    return { ...readShared(text, file, schema), ...own };
  }
  return own;
}

function readShared<S extends Shape>(text: string, file: string, schema: ObjectSchema<S>): InferShape<S> {
  try {
    const value = parseJson(text);
    return decode(schema, isObject(value) ? value : {});
  } catch (error) {
    throw new Error(
      `File "${file}" cannot be used: ${(error as Error).message}. Correct it, or name another one in "configuration_path"`,
    );
  }
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
    call.warn(`${error.message}. What remains there is removed by the next GC`);
    return;
  }
  using _ = db;
  await work(db);
}

/** The host's interface in a result, whose name a port bears. */
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
