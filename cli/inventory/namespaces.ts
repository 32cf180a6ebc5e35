/** Whether the network namespaces that records name exist, and whether this process can tell. */

import { realpathSync, type Stats, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { isNetnsGone } from '../../lib/kernel/netns.ts';
import { CommandError } from '../errors.ts';

/** The root directory of PID 1, in its mount namespace. Source: proc_pid_root(5). */
const rootOfInit = '/proc/1/root';

/** What is at the path of a namespace; "foreign": another namespace, as the process in the path is gone. */
type Presence = 'present' | 'foreign' | 'gone';

/**
 * Finds out whether network namespaces exist.
 * @param paths from records. @param directory of the records.
 * @throws CommandError when the host of the records has namespaces that this process cannot see.
 */
export function findNamespaces(paths: Iterable<string>, directory: string): Map<string, Presence> {
  const found = new Map([...new Set(paths)].map((path) => [path, lookAt(path)]));
  // Namespaces are bind mounts: a separate mount namespace, such as a debug pod's, lacks those of later pods.
  const hidden = isOfInit(directory)
    ? [...found].flatMap(([path, one]) => (one === 'gone' && isNamespaceOfInit(path) ? [path] : []))
    : [];
  if (hidden.length === 0) return found;
  throw new CommandError(
    `This process has a mount namespace of its own, without the network namespaces of running containers, such as "${hidden[0]}" ` +
      `(${hidden.length} of ${found.size}). Run the command in that of the host: nsenter --target 1 --mount -- cni …`,
  );
}

/** A process that now has the PID of a container that is gone is usually one of the host. */
function lookAt(path: string): Presence {
  if (isNetnsGone(path)) return 'gone';
  const isOfProcess = /^\/proc\/\d+\//.test(path);
  return isOfProcess && isSame(path, '/proc/thread-self/ns/net') ? 'foreign' : 'present';
}

/** Whether PID 1 has the same directory at the same path. */
function isOfInit(directory: string): boolean {
  return isSame(directory, join(rootOfInit, directory));
}

/** Whether two paths lead to the same file; false if one does not exist or, below PID 1, may not be read. */
function isSame(...paths: [string, string]): boolean {
  try {
    const [one, other] = paths.map((path) => statSync(path)) as [Stats, Stats];
    return one.dev === other.dev && one.ino === other.ino;
  } catch {
    return false;
  }
}

/** Follows symbolic links here, as below {@link rootOfInit} they would lead back to this process's root. */
function isNamespaceOfInit(path: string): boolean {
  const candidates = [path, realPathOf(path), join(realPathOf(dirname(path)), basename(path))];
  return candidates.some((one) => lookAt(join(rootOfInit, one)) === 'present');
}

function realPathOf(path: string): string {
  try {
    return realpathSync(path);
  } catch {
    return path;
  }
}
