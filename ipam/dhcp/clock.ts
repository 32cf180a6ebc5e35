/** The time by which leases run. */

import { readFileSync } from 'node:fs';
import { uptime } from 'node:os';

/**
 * Milliseconds since the host was booted, in which it may have slept. Nobody sets this clock, so that a jump
 * of the time of day neither ends leases nor lets them run on. Source: CLOCK_BOOTTIME in clock_gettime(2).
 */
export function sinceBoot(): number {
  return Math.round(uptime() * 1000);
}

/** Tells one boot of the host from another. Source: proc_sys_kernel(5). */
export function bootId(): string {
  return readFileSync('/proc/sys/kernel/random/boot_id', 'utf8').trim();
}
