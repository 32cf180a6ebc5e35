/** Whether attachments are as ADD left them: verified by CHECK, not taken for granted. */

import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { attachmentKey } from '../lib/attachment.ts';
import { findPlugin } from '../lib/cni/delegate.ts';
import { atLeast } from '../lib/cni/version.ts';
import { lookOnce, type Once } from '../lib/kernel/sharing.ts';
import { describeError } from './errors.ts';
import { type HostAttachment, type Inventory, recordedNetwork } from './inventory.ts';
import type { CachedAttachment } from './libcni/cache.ts';
import { checkNetwork, type Environment, NoAnswerError, PluginFailedError } from './libcni/chain.ts';
import type { NetworkList } from './libcni/conflist.ts';
import { isOwnPlugin, lookingPlugins } from './own-plugins.ts';
import { isCurrent } from './records.ts';
import { sandboxProblems } from './sandbox.ts';

/** The states of an attachment. */
export const stateKinds = ['ok', 'broken', 'orphaned', 'unchecked'] as const;

/** What was seen of an attachment. */
export interface State {
  /**
   * `ok`: every plugin's CHECK succeeded, and the interface is there, up and has its addresses. `broken`:
   * something is wrong. `orphaned`: it no longer belongs to a container. `unchecked`: its interface is there,
   * up and has its addresses, as far as that is known, and nothing can tell more.
   */
  readonly kind: (typeof stateKinds)[number];
  /** Why it is not ok. */
  readonly problems: readonly string[];
  /** Type of the plugin whose CHECK found it. */
  readonly foundBy?: string;
}

/** Whether an operator has to do something about it. */
export function isBad(kind: State['kind']): boolean {
  return kind === 'broken' || kind === 'orphaned';
}

/**
 * How long after a failed CHECK the record is looked at again, in milliseconds: plugins may remove rules
 * before the runtime removes the record.
 */
const settlingMs = 500;

/** How many attachments are checked at once: enough for the kernel to be asked only once for many of them. */
const atOnce = 256;

/**
 * Checks attachments with the configuration that each was added with. Nothing is changed.
 * @param once shares what is seen with others that look at the host at the same time.
 * @returns a state for each of them that was not deleted, or added anew, meanwhile.
 */
export async function checkStates(
  attachments: readonly HostAttachment[],
  { records }: Pick<Inventory, 'records'>,
  environment: Environment,
  once = lookOnce(),
): Promise<Map<HostAttachment, State>> {
  const states = new Map<HostAttachment, State>();
  const looking = { ...environment, once, execute: lookingPlugins(once) };
  const queue = attachments.values();
  const work = async () => {
    for (const one of queue)
      states.set(one, await stateOf(one, records.get(attachmentKey(one)), looking, once));
  };
  // One goes ahead: while the programs that it starts list what all share, the others look at their own.
  const first = work();
  await setImmediate();
  await Promise.all([first, ...Array.from({ length: atOnce - 1 }, work)]);
  const broken = [...states].flatMap(([one, { kind }]) => (kind === 'broken' ? one : []));
  if (broken.length > 0) await sleep(settlingMs);
  for (const one of broken) {
    const record = records.get(attachmentKey(one));
    if (record && !isCurrent(environment.cacheDir, record)) states.delete(one);
  }
  return states;
}

async function stateOf(
  one: HostAttachment,
  record: CachedAttachment | undefined,
  environment: Environment,
  once: Once,
): Promise<State> {
  if (one.orphaned.length > 0) return { kind: 'orphaned', problems: one.orphaned };
  const network = record && recordedNetwork(record, once);
  const why = uncheckable(network, record);
  if (why) return withoutCheck(one, why);
  try {
    await checkNetwork(network!, record!, environment, record);
    const file = findPlugin(network!.plugins[0]!.type, environment.path, once);
    // CHECK of other suites may look at less.
    const problems = isOwnPlugin(file, once) ? [] : sandboxProblems(one);
    return { kind: problems.length > 0 ? 'broken' : 'ok', problems };
  } catch (error) {
    if (error instanceof NoAnswerError) return withoutCheck(one, describeError(error));
    return {
      kind: 'broken',
      problems: [describeError(error)],
      ...(error instanceof PluginFailedError && { foundBy: error.type }),
    };
  }
}

/** Why CHECK cannot be run; undefined when it can. */
function uncheckable(
  network: NetworkList | undefined,
  record: CachedAttachment | undefined,
): string | undefined {
  if (!network || !record?.result) return 'the runtime has recorded no configuration or result';
  if (!atLeast(network.cniVersion || '0.1.0', '0.4.0'))
    return `cniVersion "${network.cniVersion || '0.1.0'}" has no CHECK`;
  return network.disableCheck ? 'its network has "disableCheck" set' : undefined;
}

/** What can be seen without the plugins. @param why they cannot be asked. */
function withoutCheck(one: HostAttachment, why: string): State {
  const problems = sandboxProblems(one);
  return problems.length > 0 ? { kind: 'broken', problems } : { kind: 'unchecked', problems: [why] };
}
