/** The agent that the bench measures: it keeps running, but calls find it only when they should. */

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

/** Starts an agent in this host, in place of one that is running. Calls do not find it yet. */
export async function startAgent(): Promise<void> {
  await stopAgent();
  // It must not outlive the bench, however that ends.
  agent = spawn('setpriv', ['--pdeathsig', 'KILL', program, 'agent'], {
    stdio: ['ignore', 'pipe', 'inherit'],
  });
  const ended = once(agent, 'exit').then(() => Promise.reject(new Error('The agent ended')));
  await Promise.race([once(agent.stdout!, 'data'), ended]);
  ended.catch(() => {}); // From here on, it ends only when told to.
  isExposed = true;
  exposeAgent(false);
}

/** Ends the agent, if there is one. */
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

/** Puts the socket where launchers look for it, or hides it: a rename, which takes a few microseconds. */
export function exposeAgent(shown: boolean): void {
  if (shown === isExposed) return;
  renameSync(shown ? hiddenSocket : defaultSocket, shown ? defaultSocket : hiddenSocket);
  isExposed = shown;
}

/**
 * How many calls the agents have done.
 * @throws Error when an agent left some calls to the executable: then the figures are not what they seem.
 */
export function agentCalls(): number {
  exposeAgent(true);
  const output = execFileSync(program, ['agent', 'status', '-o', 'json'], { encoding: 'utf8' });
  const status = JSON.parse(output) as AgentStatus;
  if (status.refused > 0) throw new Error(`The agent left ${status.refused} calls to the executable`);
  return status.calls.reduce((total, one) => total + one.calls, calls);
}
