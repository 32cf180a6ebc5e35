/** Which attachments an operator means by a name, the same for all commands. */

import { CommandError } from './errors.ts';
import { displayName, type HostAttachment } from './inventory.ts';

/** How many characters of a container ID must be given at least. */
const shortestBeginning = 4;

/** What a name may stand for besides a pod or a container ID. */
interface NameOptions {
  readonly networks?: boolean;
}

/**
 * The attachments that a name stands for: the name of a pod, with or without its namespace, a container ID or
 * the path of a network namespace. Only if nothing has that name, it may be the beginning of a container ID.
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

/** The error for a name that nothing has. */
export function unknownName(name: string, { networks = false }: NameOptions = {}): CommandError {
  const kinds = `${networks ? 'a network, ' : ''}a pod or a container ID`;
  return new CommandError(
    `Nothing on this host is called "${name}". Give ${kinds} that "cni list" shows, or at least ${shortestBeginning} characters of the ID`,
  );
}
