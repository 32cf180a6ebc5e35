/** Kernel settings of the network namespace that the thread is in. Source: proc(5), /proc/sys/net. */

import { closeSync, constants, openSync, readFileSync, statSync, writeSync } from 'node:fs';

/**
 * Reads a setting.
 * @param path segments below /proc/sys/net, as in `['ipv4', 'conf', 'eth0.100', 'arp_notify']`: interface
 *   names have dots.
 * @returns its value without the newline, or undefined when the kernel has no such setting.
 * @throws Error when it cannot be read.
 */
export function readSysctl(path: readonly string[]): string | undefined {
  try {
    return readFileSync(fileOf(path), 'utf8').trim();
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return undefined;
    throw new Error(`Cannot read kernel setting "${nameOf(path)}"`, { cause: error });
  }
}

/** Whether a setting can only be written, such as "net.ipv4.route.flush". @throws the error of stat(2). */
export function isWriteOnly(path: readonly string[]): boolean {
  return (statSync(fileOf(path)).mode & 0o444) === 0;
}

/** Writes a setting. @throws Error when the kernel has no such setting or refuses the value. */
export function writeSysctl(path: readonly string[], value: string): void {
  try {
    // Some settings cannot be opened to be read as well.
    const fd = openSync(fileOf(path), constants.O_WRONLY);
    try {
      writeSync(fd, value);
    } finally {
      closeSync(fd);
    }
  } catch (error) {
    throw new Error(`Cannot set kernel setting "${nameOf(path)}" to "${value}"`, { cause: error });
  }
}

/**
 * Writes a setting unless the kernel lacks it, as it does without IPv6, or it has that value already.
 * @returns whether it is in force.
 */
export function ensureSysctl(path: readonly string[], value: string): boolean {
  const current = readSysctl(path);
  if (current === undefined) return false;
  if (current !== value) writeSysctl(path, value);
  return true;
}

/**
 * As {@link ensureSysctl} for a setting that an interface works without: where it cannot be set, as in a
 * read-only /proc/sys, it warns.
 */
export function preferSysctl(path: readonly string[], value: string, warn: (message: string) => void): void {
  try {
    ensureSysctl(path, value);
  } catch (error) {
    warn(`${(error as Error).message}: ${((error as Error).cause as Error).message}`);
  }
}

function fileOf(path: readonly string[]): string {
  for (const segment of path)
    if (
      segment === '' ||
      segment === '.' ||
      segment === '..' ||
      segment.includes('/') ||
      segment.includes('\0')
    )
      throw new Error(`"${nameOf(path)}" is not the name of a kernel setting`);
  return `/proc/sys/net/${path.join('/')}`;
}

function nameOf(path: readonly string[]): string {
  return `net/${path.join('/')}`;
}
