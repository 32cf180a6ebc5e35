/** Repairs attachments, for `cni repair` and for the agent. */

import { setTimeout as sleep } from 'node:timers/promises';
import { attachmentKey } from '../../lib/attachment.ts';
import type { CallContext } from '../../lib/cni/call.ts';
import { findPlugin, isSameProgram } from '../../lib/cni/delegate.ts';
import { OutdatedError, type RepairOutcome, repairPlugin } from '../../lib/cni/repair.ts';
import type { Sharing } from '../../lib/kernel/sharing.ts';
import { pluginConfig, recordedResult } from '../../lib/networks/plugin-config.ts';
import { finderIn, type Suite } from '../../main.ts';
import { describeError } from '../errors.ts';
import type { HostAttachment, Inventory } from '../inventory.ts';
import type { CachedAttachment } from '../libcni/cache.ts';
import { deleteNetwork, type Environment } from '../libcni/chain.ts';
import { type NetworkList, networkFromCache } from '../libcni/conflist.ts';
import { currentRecord, isCurrent } from '../records.ts';
import { reservationsOf } from '../reservations.ts';
import { sandboxProblems } from '../sandbox.ts';

/**
 * How long after a repair an attachment is looked at again, in milliseconds: longer than a runtime takes from
 * the first plugin's DEL to the removal of the interface.
 */
const settlingMs = 2000;
/** How long the record of an attachment may outlive its interface, in milliseconds, on a busy machine. */
const longestEndMs = 10_000;
/** How long to wait before looking at such a record again, in milliseconds. */
const pauseMs = 200;

/** How attachments are repaired. */
export interface RepairOptions {
  readonly suite: Suite;
  /** Path of the program that stands for this suite. */
  readonly program: string;
  readonly environment: Environment;
  /** Only tell what is missing. */
  readonly isDryRun: boolean;
  /** For a process that does other things at the same time. */
  readonly sharing?: Sharing;
  /** Aborted when no further attachment is to be repaired. */
  readonly signal?: AbortSignal;
  /** Runs work while nothing else is done for the same container and interface. */
  readonly inTurn?: <T>(attachment: HostAttachment, work: () => Promise<T>) => Promise<T>;
}

/** The outcome of repairing an attachment; each text begins with the plugin that it is about. */
export interface Repaired extends Omit<RepairOutcome, 'error'> {
  readonly attachment: HostAttachment;
  /** Why something could not be restored, or looked at. */
  readonly problems: readonly string[];
  /** Plugins of other suites, which cannot be repaired. */
  readonly foreign: readonly string[];
  /** Whether it was deleted meanwhile, and what was restored has been removed again. */
  readonly isDeleted: boolean;
}

/** Attachments by what becomes of them. */
export interface Sorted {
  /** To be repaired. */
  readonly running: readonly HostAttachment[];
  /** What "cni gc" collects. */
  readonly orphans: readonly HostAttachment[];
  /** Nothing tells how ADD left them, as their records are elsewhere, or an ADD is under way. */
  readonly unrecorded: readonly HostAttachment[];
}

/** Tells which attachments a repair can look at. */
export function sortOut(
  attachments: readonly HostAttachment[],
  { records }: Pick<Inventory, 'records'>,
): Sorted {
  const isRecorded = (one: HostAttachment) => records.has(attachmentKey(one));
  const living = attachments.filter(({ orphaned }) => orphaned.length === 0);
  return {
    running: living.filter(isRecorded),
    orphans: attachments.filter(({ orphaned }) => orphaned.length > 0),
    unrecorded: living.filter((one) => !isRecorded(one)),
  };
}

/** Repairs attachments in the order in which they were added, so that their rules get the order they had. */
export async function repairAttachments(
  attachments: readonly HostAttachment[],
  { records }: Pick<Inventory, 'records'>,
  options: RepairOptions,
): Promise<Repaired[]> {
  const { signal, inTurn = (_, work) => work() } = options;
  const outcomes: Repaired[] = [];
  for (const attachment of attachments.toSorted((a, b) => Number(a.since ?? 0) - Number(b.since ?? 0))) {
    if (signal?.aborted) break;
    const record = records.get(attachmentKey(attachment));
    outcomes.push(await inTurn(attachment, () => repairAttachment(attachment, record, options)));
  }
  if (outcomes.some(({ isChanged }) => isChanged)) await sleep(settlingMs);
  return await Promise.all(
    outcomes.map((outcome) => (outcome.isChanged ? settle(outcome, records, options) : outcome)),
  );
}

async function repairAttachment(
  attachment: HostAttachment,
  record: CachedAttachment | undefined,
  options: RepairOptions,
): Promise<Repaired> {
  const { environment, isDryRun } = options;
  const [restored, missing, problems, foreign]: string[][] = [[], [], [], []] as const;
  const outcome = { attachment, restored, missing, problems, foreign, isChanged: false, isDeleted: false };
  const network = record && networkFromCache(record);
  if (!network || !record.result) {
    problems.push(
      'The runtime has recorded no configuration or result. Delete the container and add it again',
    );
    return outcome;
  }
  const mode = { isDryRun, isCurrent: () => isCurrent(environment.cacheDir, record) };
  if (!mode.isCurrent()) return { ...outcome, isDeleted: true };
  for (const { type, config, capabilities } of network.plugins) {
    try {
      const plugin = await ownPlugin(type, options);
      if (!plugin) {
        foreign.push(type);
        continue;
      }
      const result = recordedResult(record.result, network);
      const stdin = pluginConfig(network, { type, config, capabilities }, record, result);
      const find = finderIn(options.suite.plugins);
      const done = await repairPlugin(plugin, contextOf(record, stdin, options), find, mode);
      restored.push(...done.restored.map((what) => `${type}: ${what}`));
      missing.push(...done.missing.map((what) => `${type}: ${what}`));
      outcome.isChanged ||= done.isChanged;
      if (done.error) throw done.error;
    } catch (error) {
      if (error instanceof OutdatedError) return { ...outcome, isChanged: true, isDeleted: true };
      problems.push(`Plugin "${type}": ${describeError(error)}`);
      // What the next plugins work on may be missing.
      if (!isDryRun) break;
    }
  }
  return outcome;
}

/** The plugin that CNI_PATH leads to, if it is of this suite. @throws CniError when there is none. */
async function ownPlugin(type: string, { suite, program, environment }: RepairOptions) {
  const file = findPlugin(type, environment.path);
  return isSameProgram(file, program) ? await finderIn(suite.plugins)(type) : undefined;
}

/** The context of an ADD, as a repair does a part of ADD. */
function contextOf(
  { containerId, netns, ifname, args }: CachedAttachment,
  stdin: string,
  { program, environment, sharing }: RepairOptions,
): CallContext {
  return {
    program,
    invocation: {
      command: 'ADD',
      containerId,
      netns,
      ifname,
      args: args.map(([key, value]) => `${key}=${value}`).join(';'),
      path: environment.path,
      netnsOverride: false,
    },
    stdin,
    environment: environment.variables,
    warn: environment.onWarning,
    sharing,
    depth: 0,
    runEmbedded: () => undefined,
    interfaceGoes: async () => 'after',
  };
}

/**
 * An attachment that was being deleted while it was repaired must not come back. It is deleted again, unless
 * its addresses are reserved: then it is just being added anew. One that was already added anew is repaired.
 * As long as something is amiss in the container, DEL may still be under way.
 */
async function settle(
  outcome: Repaired,
  records: Inventory['records'],
  options: RepairOptions,
): Promise<Repaired> {
  const { attachment } = outcome;
  const { environment, inTurn = (_, work) => work() } = options;
  const record = records.get(attachmentKey(attachment))!;
  const network = networkFromCache(record);
  if (!network) return outcome;
  const isKept = () => isCurrent(environment.cacheDir, record);
  const end = performance.now() + longestEndMs;
  while (isKept() && sandboxProblems(attachment).length > 0 && performance.now() < end) await sleep(pauseMs);
  if (isKept()) return outcome;
  const current = currentRecord(environment.cacheDir, record);
  if (current) return await inTurn(attachment, () => repairAttachment(attachment, current, options));
  const gone = { ...outcome, restored: [], missing: [], problems: [], isDeleted: true };
  if (isReserved(network, record)) return gone;
  try {
    await deleteNetwork(network, record, environment);
    return gone;
  } catch (error) {
    const problem = `What was restored is left, as it could not be deleted again. Run "cni gc ${network.name}": ${describeError(error)}`;
    return { ...gone, problems: [problem] };
  }
}

function isReserved(network: NetworkList, record: CachedAttachment): boolean {
  const own = attachmentKey(record);
  return reservationsOf(network).held.some(({ owner }) => attachmentKey(owner) === own);
}
