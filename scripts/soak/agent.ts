/** The agent of a soak, which is started again whenever it was killed. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import type { AgentStatus } from '../../agent/statistics.ts';
import { suites } from '../../test/support/plugin.ts';
import { cleanEnv, run } from '../../test/support/run.ts';

/** How large the agent was after a number of calls. */
export interface AgentSize {
  readonly calls: number;
  /** Memory of its own, in KiB: what no other process shares. */
  readonly own: number;
}

/** An agent that is soon started again. */
export class SoakAgent {
  /** How often it, or one of its children, was killed: calls that it did at the time may fail. */
  kills = 0;
  private readonly endedByItself: (how: string) => void;
  private readonly program: string;
  private child: ChildProcess | undefined;
  /** The process that was killed here, or told to end. */
  private ending: ChildProcess | undefined;
  private starting: Promise<void> | undefined;

  /** @param endedByItself is told how an agent ended that was not killed here. */
  constructor(endedByItself: (how: string) => void, program = join(suites.ours, 'cni')) {
    this.endedByItself = endedByItself;
    this.program = program;
  }

  /** Starts it, unless it runs. */
  start(): Promise<void> {
    this.starting ??= this.launch().finally(() => {
      this.starting = undefined;
    });
    return this.starting;
  }

  private async launch(): Promise<void> {
    if (this.child?.exitCode === null && this.child.signalCode === null) return;
    const child = spawn(this.program, ['agent'], { env: cleanEnv, stdio: ['ignore', 'pipe', 'inherit'] });
    const ended = once(child, 'exit').then(() => Promise.reject(new Error('The agent ended by itself')));
    await Promise.race([once(child.stdout!, 'data'), ended]);
    ended.catch(() => {}); // From here on, the listener below handles it.
    this.child = child;
    child.once('exit', (code, signal) => {
      if (this.ending === child) return;
      this.endedByItself(signal ?? `exit code ${code}`);
      // Later calls must have an agent as well.
      this.start().catch((error: Error) => this.endedByItself(error.message));
    });
  }

  /** Process ID; undefined while there is none. */
  get pid(): number | undefined {
    return this.child?.exitCode === null && this.child.signalCode === null ? this.child.pid : undefined;
  }

  /** Kills it, and starts another one. */
  async kill(): Promise<void> {
    if (this.pid === undefined) return;
    this.kills++;
    await this.end('SIGKILL');
    this.kills++;
    await this.start();
  }

  /** Ends it, without starting another one. */
  async end(signal: NodeJS.Signals = 'SIGTERM'): Promise<void> {
    const { child } = this;
    if (this.pid === undefined || !child) return;
    const ended = once(child, 'exit');
    this.ending = child;
    child.kill(signal);
    await ended;
  }

  /** @returns undefined when the agent is just being replaced. */
  async size(): Promise<AgentSize | undefined> {
    try {
      const text = await run([this.program, 'agent', 'status', '-o', 'json']);
      const { pid, calls } = JSON.parse(text) as AgentStatus;
      const [, own] = /^RssAnon:\s+(\d+) kB$/m.exec(readFileSync(`/proc/${pid}/status`, 'utf8'))!;
      return { calls: calls.reduce((sum, one) => sum + one.calls, 0), own: Number(own) };
    } catch {
      return undefined;
    }
  }
}
