/** What an executable in the plugins' directory is: whether it is of this suite, and its version. */

import { spawnSync } from 'node:child_process';
import { lstatSync, readFileSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { privatePrefix, readLaunch } from '../../launcher/launch.ts';
import { statusAt } from '../../lib/file.ts';
import packageJson from '../../package.json' with { type: 'json' };

/** What an executable says about itself. */
export interface Identity {
  readonly isOurs: boolean;
  readonly description: string;
}

/** Name and version of this suite. */
export const ownVersion = `${packageJson.name} ${packageJson.version}`;

/** Asks an executable what it is. @param name that it is called by. @returns undefined when there is none. */
export function identify(file: string, name: string): Identity | undefined {
  const status = statusAt(file);
  // Somebody put even a broken link there.
  if (!status)
    return lstatSync(file, { throwIfNoEntry: false }) && { isOurs: false, description: 'a broken link' };
  if (!status.isFile()) return undefined;
  const self = statSync(readLaunch(process.argv).program);
  if (status.dev === self.dev && status.ino === self.ino) return { isOurs: true, description: ownVersion };
  // A launcher identifies a plugin of this suite, even one that no longer runs.
  if (privateDirectoryOf(file)) return { isOurs: true, description: suiteVersionBeside(file) };
  // Without CNI_COMMAND, a plugin says what it is and does nothing.
  const line = firstLine(file, name === 'cni' ? ['--version'] : []);
  return {
    isOurs: line.startsWith(name === 'cni' ? packageJson.name : `CNI plugin "${name}":`),
    description: line.slice(0, 60) || 'an unknown program',
  };
}

/** Versions that `cni` reported, by inode: all names of a build in a directory are links to one file. */
const versions = new Map<number, string>();

/** Plugins of this suite do not know its version, but `cni` in the same directory does. */
function suiteVersionBeside(file: string): string {
  const command = join(file, '..', 'cni');
  const [version, plugin] = [command, file].map(statusAt);
  if (!version || version.ino !== plugin?.ino) return `${packageJson.name}, another build`;
  const known = versions.get(version.ino) ?? firstLine(command, ['--version']);
  versions.set(version.ino, known);
  return known || `${packageJson.name}, which does not run`;
}

function firstLine(file: string, args: readonly string[]): string {
  const { stdout, stderr } = spawnSync(file, args, {
    env: { PATH: process.env.PATH },
    encoding: 'utf8',
    input: '',
    timeout: 5000,
  });
  return `${stdout ?? ''}${stderr ?? ''}`.split('\n')[0]!;
}

/** No launcher is larger than this, in bytes; the reference plugins have several megabytes. */
const largestLauncher = 256 * 1024;
const privateName = new RegExp(`${privatePrefix.replaceAll('.', '\\.')}[0-9a-f]+(?=/)`);

/**
 * The name of the private directory that a launcher starts its executable from, which is compiled into it.
 * Source: launcher.c.
 * @returns undefined for any other file, and for one that cannot be read.
 */
export function privateDirectoryOf(file: string): string | undefined {
  const status = statusAt(file);
  if (!status?.isFile() || status.size > largestLauncher) return undefined;
  try {
    return privateName.exec(readFileSync(file, 'latin1'))?.[0];
  } catch {
    return undefined;
  }
}
