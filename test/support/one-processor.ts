/**
 * Programs that stop and continue each other all the time: User Mode Linux and its processes, strace(1) and
 * what it traces. On one processor, each is awake as soon as the other sleeps, which makes UML three times as
 * fast, and strace twice.
 */

import { readFileSync } from 'node:fs';

/** The command before such a program, which keeps it to one of the processors that this process may use. */
export function onOneProcessor(): string[] {
  const [, list = '0'] =
    /^Cpus_allowed_list:\s*(\S+)$/m.exec(readFileSync('/proc/self/status', 'utf8')) ?? [];
  const processors = list.split(',').flatMap((part) => {
    const [first, last = first] = part.split('-').map(Number);
    return Array.from({ length: last! - first! + 1 }, (_, i) => first! + i);
  });
  const chosen = processors[Math.floor(Math.random() * processors.length)];
  return ['taskset', '--cpu-list', String(chosen)];
}
