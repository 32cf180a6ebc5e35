/** Which host this is, in whatever way its node is named. */

import { createHash } from 'node:crypto';
import { readRegularFile } from '../../lib/file.ts';

/**
 * A number for this host, the same after every boot. It is made of the machine ID, which itself is not to be
 * told to others. Source: machine-id(5).
 * @returns undefined when it has none, as in an image that was not started yet.
 */
export function hostIdentity(): string | undefined {
  try {
    const id = readRegularFile('/etc/machine-id', { followLink: true }).trim();
    if (!/^[0-9a-f]{32}$/i.test(id)) return undefined;
    return createHash('sha256').update(`whereabouts ${id.toLowerCase()}`).digest('hex').slice(0, 16);
  } catch {
    return undefined;
  }
}
