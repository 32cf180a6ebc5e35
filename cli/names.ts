/** Which attachments an operator means by a name: one way for all commands. */

import { CommandError } from './errors.ts';
import { displayName, type HostAttachment } from './inventory.ts';

/** How much of a container ID must be given at least. */
const shortestBeginning = 4;

/** What else a name may be, besides that of a pod or a container ID. */
interface NameOptions {
  readonly networks?: boolean;
}

/**
 * The attachments that a name stands for: that of a pod, with or without its namespace, a container ID or the
 * path of a network namespace. Only when nothing is called so, it may be the beginning of a container ID.
 */
export function findNamed(
  all: readonly HostAttachment[],
  name: string,
  { networks = false }: NameOptions = {},
): HostAttachment[] {
  if (name === '') return [];
  const exact = all.filter((one) =>
    [displayName(one), one.pod?.name, one.containerId, one.netns, networks && one.network].includes(name),
  );
  if (exact.length > 0 || name.length < shortestBeginning) return exact;
  return all.filter(({ containerId }) => containerId.startsWith(name));
}

/** What to say where nothing is called so. */
export function unknownName(name: string, { networks = false }: NameOptions = {}): CommandError {
  const kinds = `${networks ? 'a network, ' : ''}a pod or a container ID`;
  return new CommandError(
    `Nothing on this host is called "${name}". Give ${kinds} that "cni list" shows, or at least ${shortestBeginning} characters of the ID`,
  );
}
