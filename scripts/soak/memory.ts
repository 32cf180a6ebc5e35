/** Whether the agent's memory grows with what it does. */

import type { AgentSize, SoakAgent } from './agent.ts';

/** Calls after which an agent has what it needs: until then it grows by some 10 KiB a call. */
const warmUp = 500;
/** Looks from then on below which nothing can be said. */
const fewest = 10;
/** What a call may leave in memory, in KiB. */
const growthAtMost = 4;
/** What an agent may have at any time, in KiB; it begins with some 22 MiB. */
const most = 48 * 1024;
/** Standard errors by which it must be more: the heap grows until it is worth collecting. */
const certainty = 3;

/** Watches the agent that is not killed any more. */
export class MemoryWatch {
  private readonly agent: Pick<SoakAgent, 'size'>;
  private early: AgentSize | undefined;
  private largest: AgentSize = { calls: 0, own: 0 };
  /** Of the agent that is not killed, once it is warm. */
  private readonly sizes: AgentSize[] = [];

  constructor(agent: Pick<SoakAgent, 'size'>) {
    this.agent = agent;
  }

  /** @param mayBeKilled whether another agent may take the place of this one. */
  look(mayBeKilled: boolean): void {
    const size = this.agent.size();
    if (!size) return;
    if (size.own > this.largest.own) this.largest = size;
    if (mayBeKilled || size.calls < warmUp) this.early = size;
    else this.sizes.push(size);
  }

  /** What it has seen last, in words. */
  get latest(): string {
    const last = this.sizes.at(-1) ?? this.early;
    return last ? describe(last) : 'not seen yet';
  }

  /** What it has seen, in words. */
  report(): string[] {
    const seen = [this.early, this.sizes.at(0), this.sizes.at(-1)].filter((one) => one !== undefined);
    const { slope, error } = trendOf(this.sizes);
    const trend =
      this.sizes.length < fewest
        ? ' (too few to say by how much it grows)'
        : `: ${slope.toFixed(1)} ± ${error.toFixed(1)} KiB a call`;
    return [`memory of the agent, its own: ${seen.map(describe).join(', ')}${trend}`];
  }

  /** What grows, in words. */
  growths(): string[] {
    const { slope, error } = trendOf(this.sizes);
    const isGrowing = this.sizes.length >= fewest && slope - certainty * error > growthAtMost;
    return [
      ...(isGrowing ? [`The agent grew by ${slope.toFixed(1)} ± ${error.toFixed(1)} KiB a call`] : []),
      ...(this.largest.own > most ? [`The agent had ${describe(this.largest)}`] : []),
    ];
  }
}

function describe({ own, calls }: AgentSize): string {
  return `${(own / 1024).toFixed(1)} MiB after ${calls} calls`;
}

/** The line that fits best, in KiB a call, and the standard error of that; not finite for too few. */
function trendOf(sizes: readonly AgentSize[]): { slope: number; error: number } {
  const mean = (values: readonly number[]) => values.reduce((sum, one) => sum + one, 0) / values.length;
  const [calls, own] = [mean(sizes.map((one) => one.calls)), mean(sizes.map((one) => one.own))];
  const spread = sizes.reduce((sum, one) => sum + (one.calls - calls) ** 2, 0);
  const slope = sizes.reduce((sum, one) => sum + (one.calls - calls) * (one.own - own), 0) / spread;
  const left = sizes.reduce((sum, one) => sum + (one.own - own - slope * (one.calls - calls)) ** 2, 0);
  return { slope, error: sizes.length > 2 ? Math.sqrt(left / (sizes.length - 2) / spread) : Number.NaN };
}
