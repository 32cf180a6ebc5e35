/**
 * Repairing: what others have removed from the host's side of an attachment is restored in the way that ADD
 * makes it. It is not a verb of the specification, and runs within the process that asks for it.
 */

import { Call, type CallContext } from './call.ts';
import { findOwnInterface } from './own-interface.ts';
import type { Plugin, Repair } from './plugin.ts';
import { ProgramLock } from './program-lock.ts';
import { decodeConfig, type FindPlugin, parseConfig, readPrevResult } from './runner.ts';

/** What came of repairing one plugin's part of an attachment. */
export interface RepairOutcome {
  /** What was missing, and was found to be there afterwards. */
  readonly restored: readonly string[];
  /** What is still missing; in a dry run, all that was found missing. */
  readonly missing: readonly string[];
  /** Whether an attempt was made to restore anything, successful or not. */
  readonly isChanged: boolean;
  /** Why something could not be restored, or could not be checked afterwards. */
  readonly error?: Error;
}

/** How to repair. */
export interface RepairMode {
  /** Only tell what is missing. */
  readonly isDryRun: boolean;
  /** Tells whether the attachment is still the one that the context describes. */
  isCurrent(): boolean;
}

/** The attachment was deleted while it was being repaired. What had been restored was removed again. */
export class OutdatedError extends Error {
  override readonly name = 'OutdatedError';
}

/** Nothing was missing, or nothing was to be changed. */
const unchanged = { restored: [], isChanged: false };

/**
 * Repairs one plugin's part of an attachment that was added before.
 * @param context as for ADD of the attachment, with the final result of its chain as "prevResult".
 * @param find the plugins of this executable, for those that delegate.
 * @throws OutdatedError; Error when it cannot be told what is missing, or only another ADD can restore it.
 */
export async function repairPlugin(
  plugin: Plugin<never>,
  context: CallContext,
  find: FindPlugin,
  mode: RepairMode,
): Promise<RepairOutcome> {
  const config = decodeConfig(plugin, context, parseConfig(context.stdin));
  // As in ADD, so that DEL waits for programs that a killed repair has left.
  using programLock = mode.isDryRun ? undefined : new ProgramLock(plugin.name, config.name, context);
  using call = new Call<never>(
    { ...context, programLock },
    {
      config: config as never,
      prevResult: readPrevResult(config, context),
      validAttachments: [],
    },
  );
  const delegated = plugin.delegated?.(call);
  if (delegated) {
    const other = await find(delegated.type);
    if (!other)
      throw new Error(
        `Plugin "${delegated.type}", to which "${plugin.name}" delegates, is of another suite and cannot be repaired`,
      );
    return await repairPlugin(other, { ...context, programLock, stdin: delegated.stdin }, find, mode);
  }
  if (!plugin.repair) return { ...unchanged, missing: [] };
  if (!findOwnInterface(call))
    throw new Error(
      `Sandbox "${call.netns}" does not have interface "${call.ifname}" of this attachment. Delete the container and add it again`,
    );
  const look = async () => (await plugin.repair?.(call)) ?? [];
  const repairs = await look();
  const before = repairs.map(({ what }) => what);
  if (mode.isDryRun || before.length === 0) return { ...unchanged, missing: before };
  const failure = await restoreAll(call, repairs, mode);
  let missing: string[];
  try {
    missing = (await look()).map(({ what }) => what);
  } catch (error) {
    return { restored: [], missing: [], isChanged: true, error: failure ?? (error as Error) };
  }
  // Something that is missing now and was not before may be part of something that is only half restored.
  const isPartial = missing.some((what) => !before.includes(what));
  const restored = isPartial ? [] : before.filter((what) => !missing.includes(what));
  return { restored, missing, isChanged: true, ...(failure && { error: failure }) };
}

/** Makes the repairs one after another until one fails, which is rolled back. @returns why it failed. */
async function restoreAll(
  call: Call<never>,
  repairs: readonly Repair[],
  { isCurrent }: RepairMode,
): Promise<Error | undefined> {
  for (const restore of new Set(repairs.map((one) => one.restore))) {
    if (!isCurrent()) throw new OutdatedError();
    try {
      await restore();
      if (!isCurrent()) throw new OutdatedError();
      call.settle();
    } catch (error) {
      await call.rollBack('repair');
      if (error instanceof OutdatedError) throw error;
      return error as Error;
    }
  }
  return undefined;
}
