/** Which host this is, in whatever way its node is named. */

import { statSync } from 'node:fs';
import { readRegularFile } from '../file.ts';

/** The number of the board or virtual machine, which stays when the system is installed anew. */
const boardFile = '/sys/class/dmi/id/product_uuid';
const machineFile = '/etc/machine-id';

/**
 * A number of this host, the same after every boot: what the firmware says, which copies of one disk image do
 * not share, or else the machine ID. Neither is to be told to others as it is. Source: System Management BIOS
 * reference specification, section 7.2.1; machine-id(5).
 * @returns undefined when there is nothing that lasts.
 */
export function hostNumber(): string | undefined {
  return numberIn(boardFile) ?? (isTransient() ? undefined : numberIn(machineFile));
}

/** 128 bits in hexadecimal digits; undefined for none, and for those that stand for none, as all zeros. */
function numberIn(file: string): string | undefined {
  try {
    const digits = readRegularFile(file, { followLink: true }).trim().replaceAll('-', '').toLowerCase();
    return /^(?!(.)\1*$)[0-9a-f]{32}$/.test(digits) ? digits : undefined;
  } catch {
    return undefined;
  }
}

/** Whether the machine ID is of this boot alone: it is mounted over the file then. */
function isTransient(): boolean {
  try {
    return statSync(machineFile).dev !== statSync('/etc').dev;
  } catch {
    return true;
  }
}
