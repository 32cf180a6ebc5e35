/** What the log says about a call. Of the configuration and of CNI_ARGS, it contains only names. */

import type { CallRecord, UndoneStep } from '../record.ts';

/** Longest text of a field, in characters: what callers send may be of any length. */
const longestText = 4096;
/** How many undone steps, warnings, interfaces or addresses are listed. */
const longestList = 50;

/** A log entry, as it is in a line of JSON. What is not known is undefined. */
export interface LogEntry {
  /** When the call began, in ISO 8601 and UTC. */
  readonly time: string;
  readonly plugin: string;
  readonly verb: string;
  readonly ok: boolean;
  readonly durationMs: number;
  /** How long the call had waited for its turn, if the agent served it. */
  readonly waitedMs?: number | undefined;
  readonly network?: string | undefined;
  readonly containerId?: string | undefined;
  readonly ifname?: string | undefined;
  readonly netns?: string | undefined;
  readonly pod?: {
    readonly namespace?: string | undefined;
    readonly name?: string | undefined;
    readonly uid?: string | undefined;
  };
  /** The plugin that has delegated to this one. */
  readonly parent?: string | undefined;
  /** Path of the delegate's executable, if it runs as another process. */
  readonly executable?: string | undefined;
  /** What ADD has made. */
  readonly result?: { readonly interfaces: readonly string[]; readonly ips: readonly string[] } | undefined;
  readonly error?:
    | { readonly code: number; readonly msg: string; readonly details?: string | undefined }
    | undefined;
  readonly undone?: readonly UndoneStep[] | undefined;
  readonly warnings?: readonly string[] | undefined;
  readonly traceId?: string | undefined;
  readonly spanId?: string | undefined;
}

/** The log entry of a call that has ended. */
export function entryOf(record: CallRecord): LogEntry {
  const { pod, result, error, trace, waitedMs } = record;
  return {
    time: new Date(record.startTime).toISOString(),
    plugin: clip(record.plugin),
    verb: clip(record.verb),
    ok: error === undefined,
    durationMs: tenths(record.milliseconds),
    waitedMs: waitedMs === undefined ? undefined : tenths(waitedMs),
    network: clip(record.network),
    containerId: clip(record.containerId),
    ifname: clip(record.ifname),
    netns: clip(record.netns),
    ...(pod && { pod: { namespace: clip(pod.namespace), name: clip(pod.name), uid: clip(pod.uid) } }),
    parent: clip(record.parent?.plugin),
    executable: clip(record.executable),
    result: result && {
      interfaces: clipList(result.interfaces.map(({ name }) => name)),
      ips: clipList(result.ips.map(({ address }) => `${address}`)),
    },
    error: error && { code: error.code, msg: clip(error.msg), details: clip(error.details) },
    undone: unlessEmpty(
      record.undone
        .slice(0, longestList)
        .map((one) => ({ step: clip(one.step), ...(one.error && { error: clip(one.error) }) })),
    ),
    warnings: unlessEmpty(clipList(record.warnings)),
    traceId: trace?.traceId,
    spanId: trace?.spanId,
  };
}

function tenths(milliseconds: number): number {
  return Math.round(milliseconds * 10) / 10;
}

function clip<T extends string | undefined>(text: T): T {
  return (text && text.length > longestText ? `${text.slice(0, longestText)}…` : text) as T;
}

function clipList(texts: readonly string[]): string[] {
  return texts.slice(0, longestList).map((text) => clip(text));
}

function unlessEmpty<T>(list: readonly T[]): readonly T[] | undefined {
  return list.length > 0 ? list : undefined;
}
