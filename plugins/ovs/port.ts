/** The port of an attachment in the database: how it is reached, waited for and removed. */

import { hostInterface, whereReachable } from '../../lib/cni/open-vswitch.ts';
import { CniError, ErrorCode } from '../../lib/errors.ts';
import type { OvsdbConnection } from '../../lib/ovsdb/database.ts';
import { attachmentOf, findInterface, isPortOf, listPodPorts, removePorts } from '../../lib/ovsdb/ports.ts';
import { set } from '../../lib/ovsdb/values.ts';
import type { Config, OvsCall } from './settings.ts';

/** @param name of the host's interface, where it is known. */
export async function removeOwnPort(call: OvsCall, settings: Config, name?: string): Promise<void> {
  const own = name ?? hostInterface(call.prevResult)?.name;
  await whereReachable(call, settings, async (db) => {
    const ports = (await listPodPorts(db, call.ifname)).filter(
      (port) => isPortOf(port, call.attachment, call.netns) || (!attachmentOf(port) && port.name === own),
    );
    if (ports.length > 0) await db.transact('remove a port', removePorts(ports));
  });
}

/**
 * Waits until Open vSwitch has given an interface its number in OpenFlow, and has seen it come up.
 * @param timeoutMs after which it gives up either.
 * @throws CniError Internal when it cannot use the interface, TryAgainLater when it gives up.
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
