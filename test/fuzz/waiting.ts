/** How long something waited for other reasons than the load of the machine. */

import { readFileSync } from 'node:fs';
import { availableParallelism } from 'node:os';
import { processStat } from '../../lib/kernel/process.ts';

/** What something took, in milliseconds. */
export interface Duration {
  /** By the clock. */
  readonly clock: number;
  /** CPU time, that of child processes included. */
  readonly processor: number;
  /** While some task of the machine waited for a disk. */
  readonly disk: number;
  /** How many times as long as on an idle machine it takes to use as much CPU time. */
  readonly slowdown: number;
}

/** Milliseconds of a tick. Source: USER_HZ of the kernel. */
const tick = 10;

/** Starts to measure. @returns a function that tells what was taken since then. */
export function stopwatch(): () => Duration {
  const start = performance.now();
  const [own, childTicks, disk, schedule] = [
    process.cpuUsage(),
    ticksOfChildren(),
    waitedForDisk(),
    ownSchedule(),
  ];
  return () => {
    const { user, system } = process.cpuUsage(own);
    const now = ownSchedule();
    const [ran, delayed] = [now.ran - schedule.ran, now.delayed - schedule.delayed];
    return {
      clock: performance.now() - start,
      processor: (user + system) / 1000 + (ticksOfChildren() - childTicks) * tick,
      disk: waitedForDisk() - disk,
      // Others may have a higher priority.
      slowdown: Math.max(2 * tasksOnProcessor(), ran > 0 ? (ran + delayed) / ran : 1),
    };
  };
}

/** How long something waited for neither processor nor disk, as when it sleeps, in milliseconds. */
export function idleTime({ clock, processor, disk, slowdown }: Duration): number {
  return clock - disk - processor * slowdown;
}

/** CPU time of children that have ended. Source: "cutime" and "cstime" in proc_pid_stat(5). */
function ticksOfChildren(): number {
  const fields = processStat('self');
  return Number(fields[13]) + Number(fields[14]);
}

/** Milliseconds that some task waited for a disk. Source: Documentation/accounting/psi.rst of the kernel. */
function waitedForDisk(): number {
  try {
    return Number(/^some .*total=(\d+)/.exec(readFileSync('/proc/pressure/io', 'latin1'))?.[1]) / 1000;
  } catch {
    return 0; // The kernel was built without it.
  }
}

/** For how long this thread has run, and waited for a processor. Source: sched-stats.rst of the kernel. */
function ownSchedule(): { readonly ran: number; readonly delayed: number } {
  try {
    const [ran = 0, delayed = 0] = readFileSync('/proc/thread-self/schedstat', 'latin1')
      .split(' ')
      .map(Number);
    return { ran, delayed };
  } catch {
    return { ran: 0, delayed: 0 };
  }
}

/** How many tasks share a processor: on average over a minute, or now. Source: proc_loadavg(5). */
function tasksOnProcessor(): number {
  const [average, , , running = ''] = readFileSync('/proc/loadavg', 'latin1').split(' ');
  return Math.max(1, Math.max(Number(average), Number.parseInt(running, 10)) / availableParallelism());
}
