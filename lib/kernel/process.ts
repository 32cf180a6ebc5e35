/** What the kernel says of processes. Source: proc_pid_stat(5). */

import { readFileSync } from 'node:fs';

/**
 * The fields of /proc/PID/stat from the third one on, which is the state: the second is the name, which may
 * hold blanks and brackets.
 * @returns none when there is no such process.
 */
export function processStat(pid: number | 'self'): string[] {
  try {
    const stat = readFileSync(`/proc/${pid}/stat`, 'latin1');
    return stat
      .slice(stat.lastIndexOf(')') + 2)
      .trimEnd()
      .split(' ');
  } catch {
    return [];
  }
}
