/** Whether attachments are what ADD left: looked at by CHECK, not believed. */

import { attachmentKey } from '../lib/attachment.ts';
import { atLeast } from '../lib/cni/version.ts';
import { describeError } from './errors.ts';
import type { HostAttachment, Inventory } from './inventory.ts';
import { checkNetwork, type Environment } from './libcni/chain.ts';
import { networkFromCache } from './libcni/conflist.ts';

/** What was seen of an attachment. */
export interface State {
  /**
   * `ok`: every plugin's CHECK succeeded. `broken`: one found something. `orphaned`: it belongs to no
   * container any more. `unchecked`: nothing can tell, as with versions that have no CHECK.
   */
  readonly kind: 'ok' | 'broken' | 'orphaned' | 'unchecked';
  /** Why it is not ok. */
  readonly problems: readonly string[];
}

/** How many attachments are checked at once. */
const atOnce = 4;

/**
 * Checks attachments with the configuration that each was added with. Nothing is changed.
 * @returns a state for each of them.
 */
export async function checkStates(
  attachments: readonly HostAttachment[],
  { records }: Pick<Inventory, 'records'>,
  environment: Environment,
): Promise<Map<HostAttachment, State>> {
  const states = new Map<HostAttachment, State>();
  const queue = attachments.values();
  const work = async () => {
    for (const one of queue) states.set(one, await stateOf(one, records, environment));
  };
  await Promise.all(Array.from({ length: atOnce }, work));
  return states;
}

async function stateOf(
  one: HostAttachment,
  records: Inventory['records'],
  environment: Environment,
): Promise<State> {
  if (one.orphaned.length > 0) return { kind: 'orphaned', problems: one.orphaned };
  const record = records.get(attachmentKey(one));
  const network = record && networkFromCache(record);
  const unchecked = (why: string): State => ({ kind: 'unchecked', problems: [why] });
  if (!network || !record.result) return unchecked('the runtime has recorded no configuration or result');
  if (!atLeast(network.cniVersion || '0.1.0', '0.4.0'))
    return unchecked(`cniVersion "${network.cniVersion}" has no CHECK`);
  if (network.disableCheck) return unchecked('its network has "disableCheck" set');
  try {
    await checkNetwork(network, record, environment);
    return { kind: 'ok', problems: [] };
  } catch (error) {
    return { kind: 'broken', problems: [describeError(error)] };
  }
}
