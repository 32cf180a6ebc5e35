/** Whether the agent's memory grows with what it does. */

import type { AgentSize, SoakAgent } from './agent.ts';

/** After how many calls an agent has all the memory that it needs. */
const warmUp = 200;
/** How much a call may leave in memory, in KiB. */
const growthAtMost = 2;
/** How far the heap grows before it is collected, in KiB: nobody outside can cause a collection. */
const uncollected = 8 * 1024;
/** From how many of the last looks to take the least, as the very last may be at the peak of such growth. */
const lastLooks = 5;

/** Watches the agent that is not killed any more. */
export class MemoryWatch {
  private readonly agent: Pick<SoakAgent, 'size'>;
  private early: AgentSize | undefined;
  private looking: Promise<void> | undefined;
  /** Those of the agent that is not killed any more, once it is warm. */
  private readonly sizes: AgentSize[] = [];

  constructor(agent: Pick<SoakAgent, 'size'>) {
    this.agent = agent;
  }

  /**
   * Looks how large it is, unless that is being done already.
   * @param mayBeKilled whether another agent may take the place of this one.
   */
  look(mayBeKilled: boolean): Promise<void> {
    this.looking ??= this.lookNow(mayBeKilled).finally(() => {
      this.looking = undefined;
    });
    return this.looking;
  }

  private async lookNow(mayBeKilled: boolean): Promise<void> {
    const size = await this.agent.size();
    if (!size) return;
    if (mayBeKilled || size.calls < warmUp) this.early = size;
    else this.sizes.push(size);
  }

  /** What it saw last, in words. */
  get latest(): string {
    const last = this.sizes.at(-1) ?? this.early;
    return last ? describe(last) : 'not seen yet';
  }

  /** What it has seen, in words. */
  report(): string[] {
    const seen = [this.early, this.sizes.at(0), this.sizes.at(-1)].filter((one) => one !== undefined);
    return [`memory of the agent, its own: ${seen.map(describe).join(', ')}`];
  }

  /** What grows, in words. */
  growths(): string[] {
    const [first] = this.sizes;
    const least = this.sizes.slice(-lastLooks).toSorted((a, b) => a.own - b.own)[0];
    if (!first || !least) return [];
    const growth = least.own - first.own;
    if (growth <= uncollected + growthAtMost * (least.calls - first.calls)) return [];
    return [`The agent grew from ${describe(first)} to ${describe(least)}`];
  }
}

function describe({ own, calls }: AgentSize): string {
  return `${(own / 1024).toFixed(1)} MiB after ${calls} calls`;
}
