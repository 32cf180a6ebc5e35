/** What an agent has done, for the operator. */

/** What an agent tells of itself. */
export interface AgentStatus {
  build: string;
  pid: number;
  uptimeSeconds: number;
  running: number;
  queued: number;
  /** Calls that it left to the executable, as they were not its own. */
  refused: number;
  memoryMiB: number;
  calls: { plugin: string; verb: string; calls: number; failures: number; p50Ms: number; p99Ms: number }[];
}

/** Calls of one verb of one plugin. */
interface CallStatistics {
  readonly plugin: string;
  readonly verb: string;
  calls: number;
  failures: number;
  /** The last durations, in milliseconds. */
  readonly durations: number[];
}

/** How many durations of each verb are kept. */
const kept = 1000;

/** Counters of an agent. */
export class Statistics {
  readonly since = Date.now();
  running = 0;
  queued = 0;
  /** Calls that were another's to answer. */
  refused = 0;
  private readonly byVerb = new Map<string, CallStatistics>();

  add(plugin: string, verb: string, exit: number, milliseconds: number): void {
    const key = `${plugin} ${verb}`;
    const entry = this.byVerb.get(key) ?? { plugin, verb, calls: 0, failures: 0, durations: [] };
    this.byVerb.set(key, entry);
    entry.durations[entry.calls % kept] = milliseconds;
    entry.calls++;
    if (exit !== 0) entry.failures++;
  }

  /** Everything, in a form for JSON. @param build digest of the agent's installed tree. */
  report(build: string): AgentStatus {
    const { since, running, queued, refused } = this;
    return {
      build,
      pid: process.pid,
      uptimeSeconds: Math.round((Date.now() - since) / 1000),
      running,
      queued,
      refused,
      memoryMiB: Math.round(process.memoryUsage.rss() / 2 ** 20),
      calls: this.verbs.map(({ plugin, verb, calls, failures, durations }) => ({
        plugin,
        verb,
        calls,
        failures,
        p50Ms: quantile(durations, 0.5),
        p99Ms: quantile(durations, 0.99),
      })),
    };
  }

  private get verbs(): CallStatistics[] {
    return [...this.byVerb.values()].sort((a, b) =>
      `${a.plugin} ${a.verb}`.localeCompare(`${b.plugin} ${b.verb}`),
    );
  }
}

/** The value below which that share of the durations lies. @param share from 0 to 1. */
function quantile(durations: readonly number[], share: number): number {
  const sorted = [...durations].sort((a, b) => a - b);
  return sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)] ?? 0;
}
