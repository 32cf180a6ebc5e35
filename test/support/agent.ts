/** Asks a host's agent about itself, and names the host's namespaces to it. */

import { statSync } from 'node:fs';
import type { AgentStatus } from '../../agent/statistics.ts';
import { command } from './command.ts';
import type { Host } from './host.ts';

/** What the agent of a host reports about itself. */
export async function statusOf(host: Host): Promise<AgentStatus> {
  return JSON.parse(await host.run([command, 'agent', 'status', '-o', 'json'])) as AgentStatus;
}

/** How many calls the agent of a host has done, by its own count. */
export async function callsOf(host: Host): Promise<number> {
  const { calls } = await statusOf(host);
  return calls.reduce((sum, one) => sum + one.calls, 0);
}

/** Device and inode of one of a host's namespaces, as a launcher there states them when it offers a call. */
export function namespaceOf(host: Host, kind: string): string {
  const { dev, ino } = statSync(`/proc/${host.pid}/ns/${kind}`);
  return `${dev}:${ino}`;
}
