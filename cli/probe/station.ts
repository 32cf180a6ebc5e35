/** A place that packets are sent from: a helper process in a pod's namespace, in the host's, or outside. */

import { type ChildProcess, spawn } from 'node:child_process';
import { once } from 'node:events';
import { createInterface } from 'node:readline';
import { readLaunch } from '../../launcher/launch.ts';
import type { Netns } from '../../lib/kernel/netns.ts';
import type { Answer, Task } from './helper.ts';

/** How long a helper may take for one task, in milliseconds: its own limits are much shorter. */
const patienceMs = 20_000;

/** A helper process that sends and receives packets in its namespace, one task after the other. */
export class Station {
  private readonly child: ChildProcess;
  private readonly lines: AsyncIterator<string>;
  private turn: Promise<unknown> = Promise.resolve();

  /** Starts a helper. It ends with {@link close}, and whenever this process ends, in whatever way. */
  constructor(netns: Netns | undefined) {
    const start = () =>
      spawn(readLaunch(process.argv).program, ['probe-helper'], {
        argv0: 'cni',
        stdio: ['pipe', 'pipe', 'inherit'],
      });
    this.child = netns ? netns.run(start) : start();
    this.child.on('error', () => {}); // Each task reports it.
    this.child.stdin!.on('error', () => {});
    this.lines = createInterface({ input: this.child.stdout! })[Symbol.asyncIterator]();
  }

  /** Has the helper do a task, one after the other. Failures are answers, too. */
  ask(task: Task): Promise<Answer> {
    const answer = this.turn.then(() => this.askNow(task));
    this.turn = answer;
    return answer;
  }

  private async askNow(task: Task): Promise<Answer> {
    this.child.stdin!.write(`${JSON.stringify(task)}\n`);
    const timer = setTimeout(() => this.child.kill('SIGKILL'), patienceMs);
    try {
      const { value, done } = await this.lines.next();
      if (!done) return JSON.parse(value) as Answer;
      return { ok: false, detail: 'the helper in the network namespace has ended' };
    } finally {
      clearTimeout(timer);
    }
  }

  /** Ends the helper, and with it all that it listens on. */
  async close(): Promise<void> {
    const { child } = this;
    if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
    const ended = once(child, 'exit');
    child.kill('SIGKILL');
    await ended;
  }

  [Symbol.asyncDispose](): Promise<void> {
    return this.close();
  }
}
