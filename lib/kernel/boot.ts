/** Which boot of the host this is. A reboot ends every namespace, interface and rule. Source: random(4). */

import { readRegularFile } from '../file.ts';

const file = '/proc/sys/kernel/random/boot_id';

/** The random ID of this boot; undefined where the kernel does not give one. */
export function bootId(): string | undefined {
  try {
    return readRegularFile(file).trim() || undefined;
  } catch {
    return undefined;
  }
}

/**
 * True when something was noted under another boot, so that the namespaces of that time are gone.
 * @param noted what {@link bootId} said then; undefined or empty if nothing was noted, which proves nothing.
 */
export function isEarlierBoot(noted: string | undefined): boolean {
  const current = bootId();
  return Boolean(noted && current && noted !== current);
}
