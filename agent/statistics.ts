/** What an agent has done, for the operator. */

/** Calls of one verb of one plugin. */
export interface CallStatistics {
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

  get verbs(): CallStatistics[] {
    return [...this.byVerb.values()].sort((a, b) =>
      `${a.plugin} ${a.verb}`.localeCompare(`${b.plugin} ${b.verb}`),
    );
  }
}

/** The value below which that share of the durations lies. @param share from 0 to 1. */
export function quantile(durations: readonly number[], share: number): number {
  const sorted = [...durations].sort((a, b) => a - b);
  return sorted[Math.min(Math.floor(sorted.length * share), sorted.length - 1)] ?? 0;
}
