/** What identifies this host among those that share addresses. */

import { createHash } from 'node:crypto';
import { hostNumber } from '../../lib/kernel/host.ts';

/** A hash of {@link hostNumber}. @returns undefined when the host has no lasting number. */
export function hostIdentity(): string | undefined {
  const id = hostNumber();
  return id && createHash('sha256').update(`whereabouts ${id}`).digest('hex').slice(0, 16);
}
