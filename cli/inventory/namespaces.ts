/** Whether the network namespaces that records name exist, and whether this process can tell. */

import { realpathSync, type Stats, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { Netns } from '../../lib/kernel/netns.ts';
import { CommandError } from '../errors.ts';

/** The root directory of PID 1, in its mount namespace. Source: proc_pid_root(5). */
const rootOfInit = '/proc/1/root';

/**
 * Finds the paths at which there is a network namespace.
 * @param paths from records. @param directory of the records.
 * @throws CommandError when the records are of a host on which there are more than this process sees.
 */
export function presentNamespaces(paths: Iterable<string>, directory: string): Set<string> {
  const all = [...new Set(paths)];
  const present = new Set(all.filter(isNamespace));
  // Namespaces are bind mounts: a mount namespace of its own, as a debugging pod's, has none of later pods.
  const hidden = isOfInit(directory)
    ? all.filter((path) => !present.has(path) && isNamespaceOfInit(path))
    : [];
  if (hidden.length === 0) return present;
  throw new CommandError(
    `This process has a mount namespace of its own, without the network namespaces of running containers, such as "${hidden[0]}" ` +
      `(${hidden.length} of ${all.length}). Run the command in that of the host: nsenter --target 1 --mount -- cni …`,
  );
}

function isNamespace(path: string): boolean {
  using netns = Netns.openIfPresent(path);
  return netns !== undefined;
}

/** Whether PID 1 has the same directory at the same path. */
function isOfInit(directory: string): boolean {
  const [own, ofInit] = [directory, join(rootOfInit, directory)].map(statusOf);
  return own !== undefined && own.dev === ofInit?.dev && own.ino === ofInit.ino;
}

/** Symbolic links are followed here, as below {@link rootOfInit} they would lead back to the own root. */
function isNamespaceOfInit(path: string): boolean {
  const candidates = [path, realPathOf(path), join(realPathOf(dirname(path)), basename(path))];
  return candidates.some((one) => isNamespace(join(rootOfInit, one)));
}

function realPathOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}

/** @returns undefined for what does not exist, or cannot be seen, as PID 1 of another user. */
function statusOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}
