/** Which host this is, whatever its node is called. */

import { statSync } from 'node:fs';
import { readRegularFile } from '../file.ts';

/** The UUID of the board or virtual machine, which stays the same when the system is reinstalled. */
const boardFile = '/sys/class/dmi/id/product_uuid';
const machineFile = '/etc/machine-id';

/**
 * An ID of this host, the same after every boot: the firmware's, which copies of one disk image do not share,
 * or else the machine ID. Neither should be disclosed as it is. Source: System Management BIOS reference
 * specification, section 7.2.1; machine-id(5).
 * @returns undefined when there is no lasting ID.
 */
export function hostNumber(): string | undefined {
  return numberIn(boardFile) ?? (isTransient() ? undefined : numberIn(machineFile));
}

/** 128 bits in hexadecimal digits; undefined when there are none, or a placeholder such as all zeros. */
function numberIn(file: string): string | undefined {
  try {
    const digits = readRegularFile(file, { followLink: true }).trim().replaceAll('-', '').toLowerCase();
    return /^(?!(.)\1*$)[0-9a-f]{32}$/.test(digits) ? digits : undefined;
  } catch {
    return undefined;
  }
}

/** Whether the machine ID is that of this boot only: it is then mounted over the file. */
function isTransient(): boolean {
  try {
    return statSync(machineFile).dev !== statSync('/etc').dev;
  } catch {
    return true;
  }
}
