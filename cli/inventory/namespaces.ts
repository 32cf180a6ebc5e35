/** Whether the network namespaces that records name exist, and whether this process can tell. */

import { fstatSync, realpathSync, type Stats, statSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { Netns } from '../../lib/kernel/netns.ts';
import { CommandError } from '../errors.ts';

/** The root directory of PID 1, in its mount namespace. Source: proc_pid_root(5). */
const rootOfInit = '/proc/1/root';

/** What is at the path of a namespace; "foreign": another one, as the process of the path is gone. */
type Finding = 'present' | 'foreign' | 'gone';

/**
 * Looks whether network namespaces exist.
 * @param paths from records. @param directory of the records.
 * @throws CommandError when the records are of a host on which there are more than this process sees.
 */
export function findNamespaces(paths: Iterable<string>, directory: string): Map<string, Finding> {
  const found = new Map([...new Set(paths)].map((path) => [path, lookAt(path)]));
  // Namespaces are bind mounts: a mount namespace of its own, as a debugging pod's, has none of later pods.
  const hidden = isOfInit(directory)
    ? [...found].flatMap(([path, one]) => (one === 'gone' && isNamespaceOfInit(path) ? [path] : []))
    : [];
  if (hidden.length === 0) return found;
  throw new CommandError(
    `This process has a mount namespace of its own, without the network namespaces of running containers, such as "${hidden[0]}" ` +
      `(${hidden.length} of ${found.size}). Run the command in that of the host: nsenter --target 1 --mount -- cni …`,
  );
}

/** What has the PID of a container that is gone is mostly a process of the host. */
function lookAt(path: string): Finding {
  using netns = Netns.openIfPresent(path);
  if (!netns) return 'gone';
  const isOwn = isSame(fstatSync(netns.fd), statSync('/proc/thread-self/ns/net'));
  return isOwn && /^\/proc\/\d+\//.test(path) ? 'foreign' : 'present';
}

/** Whether PID 1 has the same directory at the same path. */
function isOfInit(directory: string): boolean {
  const [own, ofInit] = [directory, join(rootOfInit, directory)].map(statusOf);
  return own !== undefined && ofInit !== undefined && isSame(own, ofInit);
}

function isSame(one: Stats, other: Stats): boolean {
  return one.dev === other.dev && one.ino === other.ino;
}

/** Symbolic links are followed here, as below {@link rootOfInit} they would lead back to the own root. */
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

/** @returns undefined for what does not exist, or cannot be seen, as PID 1 of another user. */
function statusOf(path: string): Stats | undefined {
  try {
    return statSync(path);
  } catch {
    return undefined;
  }
}
