/** What the runtime of a soak works with, and how its calls are judged. */

import type { Contender } from '../bench/call.ts';
import type { Random } from '../random.ts';
import type { Caller, Outcome } from './call.ts';
import type { Findings } from './findings.ts';
import { chooseKill, type Kill, targets } from './kills.ts';
import type { SoakNetwork } from './networks.ts';

/** How likely it is that a call is killed. */
const killProbability = 0.05;
/** How likely it is that the launcher of the first ADD of a chain is killed, when the agent does the call. */
const launcherKillProbability = 0.2;
/** Attempts at DEL or GC, the last ones without kills, after which it is a violation if none succeeded. */
export const triesAtMost = 8;
/** How long the agent may take to undo what nobody waits for any more, in milliseconds. */
export const settlingTime = 90_000;
/** For how long programs that a killed plugin has started may go on, in milliseconds. */
export const orphansLive = 10_000;

export interface Tools {
  readonly networks: readonly SoakNetwork[];
  readonly caller: Caller;
  readonly findings: Findings;
  /** Whether the agent may be killed just now. */
  mayKillAgent(): boolean;
}

/** The kill that hits a call, if any. @param tries how often the same has been tried already. */
export function killFor(tries: number, { mayKillAgent }: Tools, random: Random): Kill | undefined {
  const among = targets.filter((target) => target !== 'agent' || mayKillAgent());
  return chooseKill(random, tries > triesAtMost / 2 ? 0 : killProbability, among);
}

/** A kill of the launcher of an ADD that the agent does, which has to undo it. */
export function killOfLauncher(random: Random): Kill | undefined {
  return chooseKill(random, launcherKillProbability, ['process']);
}

/** Whether an ADD failed because every address was reserved, in the words of either suite. */
export function isFull({ message }: Pick<Outcome, 'message'>): boolean {
  return /No address is free|no IP addresses available/.test(message);
}

/** Counts a call that failed. It is a violation if this suite failed without being disturbed. */
export function judge(
  findings: Findings,
  { command, plugin, contender }: { command: string; plugin: string; contender: Contender },
  { isDone, isDisturbed, message }: Outcome,
): void {
  if (isDone) return;
  if (command === 'ADD' && isFull({ message })) findings.count('no address');
  // A DEL that was killed may have released only the address.
  else if (plugin === 'ptp' && /leads to interface .* of the host already/.test(message))
    findings.count('address whose pod was not gone yet');
  else if (isDisturbed) findings.count(`${command} that failed as something was killed`);
  // On a busy machine, its launcher did not get to send its input for ten seconds.
  else if (/CNI agent did not finish this call/.test(message))
    findings.count(`${command} that the agent gave up`);
  else if (contender === 'reference') findings.count(`${command} that the reference failed at by itself`);
  else findings.violation(`${command} of ${plugin} (${contender}) failed by itself: ${message}`);
}
