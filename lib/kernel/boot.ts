/**
 * Which boot of the host this is, and how long ago that was. A reboot ends every namespace, interface and
 * rule. Source: random(4).
 */

import { readRegularFile } from '../file.ts';

const idFile = '/proc/sys/kernel/random/boot_id';

/** The random ID of this boot; undefined where the kernel does not give one. */
export function bootId(): string | undefined {
  try {
    return readRegularFile(idFile).trim() || undefined;
  } catch {
    return undefined;
  }
}

/**
 * True when something was recorded during an earlier boot, so that the namespaces of that time are gone.
 * @param noted what {@link bootId} returned then; undefined or empty if it was not recorded, which proves
 *   nothing.
 */
export function isEarlierBoot(noted: string | undefined): boolean {
  const current = bootId();
  return Boolean(noted && current && noted !== current);
}

/**
 * Seconds for which the host has been awake since it was booted, by a clock that all processes share and
 * nobody can set. Source: CLOCK_MONOTONIC in clock_gettime(2).
 */
export function secondsAwake(): number {
  return Number(process.hrtime.bigint()) / 1e9;
}

/**
 * Milliseconds since the host was booted, including time asleep. Nobody can set this clock either, so that a
 * jump in the time of day neither ends leases nor prolongs them. Source: proc_uptime(5).
 */
export function msSinceBoot(): number {
  return Math.round(Number.parseFloat(readRegularFile('/proc/uptime')) * 1000);
}
