/** The agent that the bench measures: it keeps running, and calls find it only when they are to. */

import { type ChildProcess, execFileSync, spawn } from 'node:child_process';
import { once } from 'node:events';
import { renameSync } from 'node:fs';
import { join } from 'node:path';
import { defaultSocket } from '../../agent/agent.ts';
import type { AgentStatus } from '../../agent/statistics.ts';
import { suites } from '../../test/support/plugin.ts';

/** Where no launcher looks for the socket. */
const hiddenSocket = `${defaultSocket}.hidden`;
const program = join(suites.ours, 'cni');

let agent: ChildProcess | undefined;
let isExposed = false;
let calls = 0;

/** Starts an agent in this host, in the place of one that runs. Calls do not find it yet. */
export async function startAgent(): Promise<void> {
  await stopAgent();
  // It must not outlive the bench, however that ends.
  agent = spawn('setpriv', ['--pdeathsig', 'KILL', program, 'agent'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(agent, 'exit').then(() => Promise.reject(new Error('The agent ended')));
  await Promise.race([once(agent.stdout!, 'data'), ended]);
  ended.catch(() => {}); // Later it ends when it is told to.
  isExposed = true;
  exposeAgent(false);
}

/** Has the agent end, if there is one. */
export async function stopAgent(): Promise<void> {
  if (!agent) return;
  calls = agentCalls();
  const ended = once(agent, 'exit');
  agent.kill();
  await ended;
  agent = undefined;
}

/** Process ID of the agent. */
export function agentPid(): number {
  return agent!.pid!;
}

/** Puts the socket where launchers look for it, or takes it from there: a rename, of some microseconds. */
export function exposeAgent(shown: boolean): void {
  if (shown === isExposed) return;
  renameSync(shown ? hiddenSocket : defaultSocket, shown ? defaultSocket : hiddenSocket);
  isExposed = shown;
}

/**
 * How many calls the agents have done.
 * @throws Error when one left some to the executable: then what was measured is not what it seems.
 */
export function agentCalls(): number {
  exposeAgent(true);
  const output = execFileSync(program, ['agent', 'status', '-o', 'json'], { encoding: 'utf8' });
  const status = JSON.parse(output) as AgentStatus;
  if (status.refused > 0) throw new Error(`The agent left ${status.refused} calls to the executable`);
  return status.calls.reduce((total, one) => total + one.calls, calls);
}
