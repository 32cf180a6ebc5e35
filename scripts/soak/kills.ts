/** Kills whatever does a call, at a random moment. */

import type { ChildProcess } from 'node:child_process';
import { readdirSync, readlinkSync } from 'node:fs';
import { basename } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { processStat } from '../../lib/kernel/process.ts';
import type { Random } from '../random.ts';
import type { SoakAgent } from './agent.ts';

/** What is killed: the process that the runtime started, a child of whoever does the call, or the agent. */
export const targets = ['process', 'process', 'child', 'agent'] as const;

/** A planned kill. */
export interface Kill {
  readonly target: (typeof targets)[number];
  /** When, as a fraction of the time that such a call usually takes. */
  readonly at: number;
}

/** How often to look at a process, or for one, in milliseconds. */
const lookInterval = 4;
/** How often to look whether a process has stopped. */
const mostLooks = 500;

/** Decides whether something is killed, and which of the targets. */
export function chooseKill(
  random: Random,
  probability: number,
  among: readonly Kill['target'][],
): Kill | undefined {
  if (!random.chance(probability)) return undefined;
  return { target: random.pick(among), at: random.below(1000) / 1000 };
}

/**
 * Carries out a kill, unless the call is over by then.
 * @param child the process that the runtime started.
 * @param isAgentCall whether the agent does the call, if it is there.
 * @param usual how long such a call takes, in milliseconds.
 * @param over aborted when the call is over.
 * @returns what was killed; "launcher" if the agent does its call, or has not taken it yet.
 */
export async function carryOut(
  { target, at }: Kill,
  child: ChildProcess,
  { agent, isAgentCall, usual, over }: KillScene,
): Promise<Victim | undefined> {
  await sleep(at * usual, undefined, { signal: over }).catch(() => {});
  if (target === 'child') {
    const [parent, isAgents] = isAgentCall && agent.pid ? [agent.pid, true] : [child.pid!, false];
    for (; !over.aborted; await sleep(lookInterval)) {
      const [victim] = childrenOf(parent);
      if (victim === undefined || !killProcess(victim)) continue;
      if (isAgents) agent.kills++;
      return 'other';
    }
    return undefined;
  }
  if (over.aborted) return undefined;
  if (target === 'process') {
    // Otherwise it could become the executable after the look.
    await stop(child);
    const victim = isAgentCall && isLauncher(child) ? 'launcher' : 'other';
    return child.kill('SIGKILL') ? victim : undefined;
  }
  await agent.kill();
  return 'other';
}

/** A process that was killed. */
export type Victim = 'launcher' | 'other';

/** Stops a process. @returns once it does nothing any more, or cannot be stopped. */
async function stop(child: ChildProcess): Promise<void> {
  child.kill('SIGSTOP');
  const isAtWork = () => /^[RSD]$/.test(processStat(child.pid!)[0] ?? '');
  for (let looks = 0; looks < mostLooks && isAtWork(); looks++) await sleep(lookInterval);
}

/** False once it has become the executable, as happens if the agent does not take the call. */
function isLauncher({ pid, spawnfile }: ChildProcess): boolean {
  try {
    return basename(readlinkSync(`/proc/${pid}/exe`)) === basename(spawnfile);
  } catch {
    return false; // It has just ended.
  }
}

export interface KillScene {
  readonly agent: SoakAgent;
  readonly isAgentCall: boolean;
  readonly usual: number;
  readonly over: AbortSignal;
}

function childrenOf(pid: number): number[] {
  return readdirSync('/proc')
    .filter((name) => /^\d+$/.test(name))
    .map(Number)
    .filter((one) => Number(processStat(one)[1]) === pid);
}

function killProcess(pid: number): boolean {
  try {
    return process.kill(pid, 'SIGKILL');
  } catch {
    return false;
  }
}
