/** The port of an attachment in the database: how it is found, waited for and removed. */

import { hostInterface, whereReachable } from '../../lib/cni/open-vswitch.ts';
import { CniError, ErrorCode } from '../../lib/errors.ts';
import { getLink, listLinks } from '../../lib/kernel/link.ts';
import type { OvsdbConnection } from '../../lib/ovsdb/database.ts';
import {
  attachmentOf,
  findInterface,
  isPortOf,
  listPodPorts,
  listSystemInterfaces,
  type Port,
  removePorts,
} from '../../lib/ovsdb/ports.ts';
import { set } from '../../lib/ovsdb/values.ts';
import type { Config, OvsCall } from './settings.ts';

/**
 * Removes the port of an attachment, and other stale ports.
 * @param name of the host's interface, where it is known.
 */
export async function removeOwnPort(call: OvsCall, settings: Config, name?: string): Promise<void> {
  const own = name ?? hostInterface(call.prevResult)?.name;
  await whereReachable(call, settings, async (db) => {
    const isOwn = (port: Port) =>
      isPortOf(port, call.attachment, call.netns) || (!attachmentOf(port) && port.name === own);
    const ports = await stalePorts(call, db, isOwn);
    if (ports.length > 0) await db.transact('remove a port', removePorts(ports));
  });
}

/**
 * Ports of pods to remove: those of an attachment, and those whose interface is gone. The latter are left by
 * a DEL that was not told its port or could not reach the database; not every runtime calls GC.
 */
export async function stalePorts(
  call: OvsCall,
  db: OvsdbConnection,
  isOwn: (port: Port) => boolean,
): Promise<Port[]> {
  const ports = await listPodPorts(db);
  // Only after the ports: a port's interface is created before the port.
  const links = new Set(listLinks(call.host).map(({ name }) => name));
  const system = ports.every(({ name }) => links.has(name)) ? [] : await listSystemInterfaces(db);
  // A list of interfaces may lack some while others come and go.
  const isGone = ({ name }: Port) => !links.has(name) && system.includes(name) && !getLink(call.host, name);
  return ports.filter((port) => isOwn(port) || isGone(port));
}

/**
 * Waits until Open vSwitch has given an interface its OpenFlow port number, and has seen it come up.
 * @param timeoutMs limit for each of the two.
 * @throws CniError Internal when Open vSwitch cannot use the interface, TryAgainLater on timeout.
 */
export async function waitUntilUp(db: OvsdbConnection, name: string, timeoutMs: number): Promise<void> {
  const untouched = { ofport: set([]), error: set([]) };
  await db.waitFor('Interface', [['name', '==', name]], '!=', untouched, timeoutMs);
  const taken = await findInterface(db, name);
  if (!taken || taken.error || taken.ofport === undefined || taken.ofport < 0)
    throw new CniError(
      taken?.error ? ErrorCode.Internal : ErrorCode.TryAgainLater,
      taken?.error
        ? `Open vSwitch cannot use interface "${name}". Look for the reason with "ovs-vsctl show" and in the log of ovs-vswitchd`
        : `Open vSwitch has not taken interface "${name}" up within ${timeoutMs / 1000} seconds. See to it that ovs-vswitchd runs, or raise "link_state_check_retries"`,
      taken?.error,
    );
  if (await db.waitFor('Interface', [['name', '==', name]], '==', { link_state: 'up' }, timeoutMs)) return;
  throw new CniError(
    ErrorCode.TryAgainLater,
    `Open vSwitch has not seen interface "${name}" come up within ${timeoutMs / 1000} seconds. Raise "link_state_check_retries" if the host is that busy`,
  );
}
