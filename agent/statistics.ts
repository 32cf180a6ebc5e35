/** What an agent has done, for the operator. */

import { getPriority } from 'node:os';
import { ErrorCode } from '../lib/errors.ts';
import type { OverlayStatus } from './overlay/host.ts';

/** What an agent reports about itself. */
export interface AgentStatus {
  build: string;
  pid: number;
  /** Its nice value: the lower, the more processor time it gets. */
  priority: number;
  uptimeSeconds: number;
  running: number;
  queued: number;
  /** Calls that it left to the executable: they were not its own, or their launchers took them back. */
  refused: number;
  memoryMiB: number;
  calls: VerbStatus[];
  /** Left out without overlay. */
  overlay?: OverlayStatus;
}

/** Calls of one verb of one plugin. */
interface VerbStatus {
  plugin: string;
  verb: string;
  calls: number;
  failures: number;
  /** Calls by {@link FinishedCall.code}. */
  codes: Record<string, number>;
  p50Ms: number;
  p99Ms: number;
}

/** A call that has ended. Each of its texts has few possible values, whatever callers send. */
export interface FinishedCall {
  /** One of the agent's plugins. */
  readonly plugin: string;
  /** A verb of the CNI specification, or "other". */
  readonly verb: string;
  /**
   * "0" for success, or the CNI error code; "other" for one that neither the specification nor this suite
   * defines, as a delegate may give; "unanswered" when the runtime was gone before it had the answer.
   */
  readonly code: string;
  readonly milliseconds: number;
}

const verbs: readonly string[] = ['ADD', 'DEL', 'CHECK', 'GC', 'STATUS', 'VERSION'];
const codes: readonly number[] = [0, ...Object.values(ErrorCode)];

/** How many durations of each verb are kept. */
const kept = 1000;

/** What is counted of one verb of one plugin. */
interface Counters {
  readonly plugin: string;
  readonly verb: string;
  calls: number;
  readonly codes: Map<string, number>;
  /** The last durations, in milliseconds. */
  readonly durations: number[];
}

/** Counters of an agent. */
export class Statistics {
  running = 0;
  queued = 0;
  /** Calls that were not this agent's, or that their launchers took back. */
  refused = 0;
  /** How often an attachment was repaired. */
  repaired = 0;
  /** How often an attachment was still broken after that, or could not be repaired. */
  unrepaired = 0;
  private readonly since = performance.now();
  private readonly byVerb = new Map<string, Counters>();

  /**
   * Counts a call that has ended.
   * @param plugin one of the agent's.
   * @param command CNI_COMMAND, whatever it is.
   * @param code 0 for success, or the CNI error code; undefined when nobody took the answer.
   * @returns the call as it was counted.
   */
  add(plugin: string, command: string, code: number | undefined, milliseconds: number): FinishedCall {
    const verb = describeVerb(command);
    const call = { plugin, verb, code: describeCode(code), milliseconds };
    const key = `${plugin} ${verb}`;
    const entry = this.byVerb.get(key) ?? { plugin, verb, calls: 0, codes: new Map(), durations: [] };
    this.byVerb.set(key, entry);
    entry.durations[entry.calls % kept] = milliseconds;
    entry.calls++;
    entry.codes.set(call.code, (entry.codes.get(call.code) ?? 0) + 1);
    return call;
  }

  /** For how long the agent has been running, in seconds. */
  get uptime(): number {
    return (performance.now() - this.since) / 1000;
  }

  /** All that is counted, in a form for JSON. @param build digest of the agent's installed tree. */
  report(build: string): AgentStatus {
    const { uptime, running, queued, refused } = this;
    return {
      build,
      pid: process.pid,
      priority: getPriority(),
      uptimeSeconds: Math.round(uptime),
      running,
      queued,
      refused,
      memoryMiB: Math.round(process.memoryUsage.rss() / 2 ** 20),
      calls: [...this.byVerb.keys()].sort().map((key) => statusOf(this.byVerb.get(key)!)),
    };
  }
}

/** @returns a verb of the CNI specification, or "other". */
export function describeVerb(command: string): string {
  return verbs.includes(command) ? command : 'other';
}

function describeCode(code: number | undefined): string {
  if (code === undefined) return 'unanswered';
  return codes.includes(code) ? `${code}` : 'other';
}

function statusOf({ plugin, verb, calls, codes, durations }: Counters): VerbStatus {
  return {
    plugin,
    verb,
    calls,
    failures: calls - (codes.get('0') ?? 0),
    codes: Object.fromEntries(codes),
    p50Ms: quantile(durations, 0.5),
    p99Ms: quantile(durations, 0.99),
  };
}

/** The value below which that share of the durations lies. @param share from 0 to 1. */
function quantile(durations: readonly number[], share: number): number {
  const sorted = [...durations].sort((a, b) => a - b);
  return sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)] ?? 0;
}
