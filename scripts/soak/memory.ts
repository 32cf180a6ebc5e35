/** Whether the agent's memory grows with what it does. */

import type { AgentSize, SoakAgent } from './agent.ts';

/** Calls after which an agent has what it needs. */
const warmUp = 200;
/** Calls from then on below which nothing can be said. */
const fewest = 300;
/** What a call may leave in memory, in KiB: the heap grows until it is worth collecting. */
const growthAtMost = 40;

/** Watches the agent that is not killed any more. */
export class MemoryWatch {
  private readonly agent: Pick<SoakAgent, 'size'>;
  private early: AgentSize | undefined;
  private first: AgentSize | undefined;
  private last: AgentSize | undefined;

  constructor(agent: Pick<SoakAgent, 'size'>) {
    this.agent = agent;
  }

  /** @param mayBeKilled whether another agent may take the place of this one. */
  look(mayBeKilled: boolean): void {
    const size = this.agent.size();
    if (!size) return;
    if (mayBeKilled) {
      this.early = size;
      return;
    }
    if (size.calls >= warmUp) this.first ??= size;
    this.last = size;
  }

  /** What it has seen, in words. */
  report(): string[] {
    const describe = ({ own, calls }: AgentSize) => `${(own / 1024).toFixed(1)} MiB after ${calls} calls`;
    const seen = [this.early, this.first, this.last].filter((one) => one !== undefined);
    return [`memory of the agent, its own: ${seen.map(describe).join(', ')}`];
  }

  /** What grows, in words. */
  growths(): string[] {
    const { first, last } = this;
    if (!first || !last || last.calls - first.calls < fewest) return [];
    const growth = (last.own - first.own) / (last.calls - first.calls);
    return growth <= growthAtMost ? [] : [`The agent grew by ${growth.toFixed()} KiB a call`];
  }
}
