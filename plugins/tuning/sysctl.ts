/**
 * Names of kernel settings as configurations have them, and which of them the host's administrator allows.
 */

import { readRegularFile } from '../../lib/file.ts';
import { isWriteOnly, readSysctl } from '../../lib/kernel/sysctl.ts';

const allowlistFile = '/etc/cni/tuning/allowlist.conf';

/**
 * Finds a setting by its name: `net.ipv4.conf.IFNAME.arp_filter`, or with slashes, where dots are part of a
 * segment, as in sysctl(8).
 * @param ifname replaces IFNAME.
 * @returns segments below /proc/sys/net.
 * @throws Error when it is not a network setting.
 */
export function sysctlPath(name: string, ifname: string): string[] {
  const dotted = /^[^/]*\./.test(name);
  const segments = name
    .split(dotted ? /[./]/ : '/')
    // A path may begin with a slash, or have one too many.
    .filter((part) => dotted || (part !== '' && part !== '.'))
    .map((part) => (part === 'IFNAME' ? ifname : part));
  const [first, ...path] = segments;
  if (first !== 'net' || path.length === 0)
    throw new Error(
      `"sysctl" has "${name}", but only settings that begin with "net." belong to a sandbox. Remove it`,
    );
  if (path.some((part) => part === '' || part === '..' || part.includes('\0')))
    throw new Error(
      `"sysctl" has "${name}", which is not the name of a kernel setting. Write it like "net.ipv4.conf.IFNAME.arp_filter"`,
    );
  return path;
}

/**
 * Refuses settings that the administrator does not allow: each must match a regular expression of the
 * allowlist, if there is one. The expressions are Go's, for which such lists were written.
 * @param names as the configuration has them.
 */
export async function refuseForbidden(names: readonly string[]): Promise<void> {
  if (names.length === 0) return;
  let lines: string[];
  try {
    lines = readRegularFile(allowlistFile, { followLink: true }).split('\n');
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code === 'ENOENT') return;
    throw new Error(`Cannot read "${allowlistFile}"`, { cause: error });
  }
  const { RE2JS } = await import('re2js');
  const unreadable = new Set<string>();
  const allows = (line: string, name: string): boolean => {
    try {
      return RE2JS.compile(line).matcher(name).find();
    } catch {
      unreadable.add(line);
      return false;
    }
  };
  // An empty expression would match everything.
  const expressions = lines.map((line) => line.trim()).filter((line) => line !== '');
  const forbidden = names.find((name) => !expressions.some((line) => allows(line, name)));
  if (forbidden === undefined) return;
  const [first] = unreadable;
  throw new Error(
    `Kernel setting "${forbidden}" is not allowed on this host. Remove it from "sysctl", or allow it in "${allowlistFile}"` +
      (first === undefined ? '' : `, which has "${first}" in it: that is not a regular expression`),
  );
}

/**
 * Reads settings in the sandbox that the thread is in, except those that cannot be read.
 * @throws Error when one does not exist.
 */
export function readSysctls(names: readonly string[], ifname: string): Record<string, string> {
  const values: Record<string, string> = {};
  for (const name of names) {
    const path = sysctlPath(name, ifname);
    let value: string | undefined;
    try {
      value = readSysctl(path);
    } catch {
      continue;
    }
    if (value === undefined)
      throw new Error(
        `Kernel setting "${name}" does not exist in the sandbox. Correct its name; a setting of the whole host cannot be set for a sandbox`,
      );
    values[name] = value;
  }
  return values;
}

/** Whether a setting of the sandbox that the thread is in can only be written. @throws as stat(2). */
export function isOnlyWritten(name: string, ifname: string): boolean {
  return isWriteOnly(sysctlPath(name, ifname));
}
