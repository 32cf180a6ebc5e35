/** What tests ask of a host's agent, and tell it of the host. */

import { statSync } from 'node:fs';
import type { AgentStatus } from '../../agent/statistics.ts';
import { command } from './command.ts';
import type { Host } from './host.ts';

/** What the agent of a host tells of itself. */
export async function statusOf(host: Host): Promise<AgentStatus> {
  return JSON.parse(await host.run([command, 'agent', 'status', '-o', 'json'])) as AgentStatus;
}

/** How many calls the agent of a host has done, by its own account. */
export async function callsOf(host: Host): Promise<number> {
  const { calls } = await statusOf(host);
  return calls.reduce((sum, one) => sum + one.calls, 0);
}

/** Device and inode of one of a host's namespaces, as a launcher there offers its calls with. */
export function namespaceOf(host: Host, kind: string): string {
  const { dev, ino } = statSync(`/proc/${host.pid}/ns/${kind}`);
  return `${dev}:${ino}`;
}
