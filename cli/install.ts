/** `cni install`: puts the plugins where runtimes look for them, while pods come and go. */

import { execFileSync, spawnSync } from 'node:child_process';
import { linkSync, lstatSync, mkdtempSync, readdirSync, renameSync, rmSync, statSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import type { CommandModule } from 'yargs';
import { readLaunch } from '../launcher/launch.ts';
import { isObject } from '../lib/cni/schema.ts';
import { makeDirectory } from '../lib/directory.ts';
import type { Suite } from '../main.ts';
import packageJson from '../package.json' with { type: 'json' };
import { CommandError } from './errors.ts';
import {
  copyPrivateDirectory,
  linkOrCopy,
  ownPrivateDirectory,
  placePrivateDirectory,
  removeOldPrivateDirectories,
  syncFiles,
} from './private-directory.ts';
import { checkUnits, installUnits, removeUnits } from './systemd.ts';
import { count, formatTable, note, print } from './terminal.ts';

interface InstallArguments {
  'bin-dir': string;
  agent: boolean;
  uninstall: boolean;
}

/** The subcommand. @param suite whose names are installed. */
export function install(suite: Suite): CommandModule<object, InstallArguments> {
  const names = [...suite.plugins.keys(), ...suite.ipam.keys(), 'cni'];
  return {
    command: 'install',
    describe: 'Install the plugins, or remove them',
    builder: (yargs) =>
      yargs
        .option('bin-dir', {
          type: 'string',
          default: '/opt/cni/bin',
          requiresArg: true,
          describe: 'Directory where the runtime looks for plugins',
        })
        .option('agent', {
          type: 'boolean',
          default: false,
          describe: 'Also have systemd run the agent: install, enable and start cni-agent.socket',
        })
        .option('uninstall', {
          type: 'boolean',
          default: false,
          describe: "Remove the plugins of this suite, and the agent's units",
        })
        .example('$0 install', 'Install into /opt/cni/bin')
        .example('$0 install --agent', 'The same, and start the agent')
        .example('$0 install --bin-dir /host/opt/cni/bin', 'Install on the host, from a container')
        .example('$0 install --uninstall', 'Remove what was installed')
        .epilogue(
          'Each plugin is replaced in one step, so that no ADD fails meanwhile, and only after all have been tried. ' +
            'Plugins of other names are kept; --uninstall also keeps those that are not of this suite.',
        ),
    handler: async ({ 'bin-dir': directory, agent, uninstall }) => {
      const binDir = resolve(directory);
      if (uninstall) {
        if (!statSync(binDir, { throwIfNoEntry: false }))
          throw new CommandError(
            `There is no directory "${binDir}", so that nothing is installed there. Give another --bin-dir`,
          );
        removeUnits(binDir);
        remove(names, binDir);
      } else {
        if (agent) await checkUnits(binDir);
        replace(names, binDir);
        if (agent) installUnits(binDir);
      }
    },
  };
}

function replace(names: readonly string[], binDir: string): void {
  const hidden = ownPrivateDirectory();
  const staging = stage(binDir);
  try {
    const previous = new Map(names.map((name) => [name, identify(join(binDir, name), name)]));
    const blocked = names.find((name) =>
      statSync(join(binDir, name), { throwIfNoEntry: false })?.isDirectory(),
    );
    if (blocked)
      throw new CommandError(`"${join(binDir, blocked)}" is a directory. Remove it. Nothing was changed`);
    const staged = join(staging, basename(hidden));
    const how = copyPrivateDirectory(hidden, staged);
    const launcher = join(staging, 'launcher');
    linkOrCopy(readLaunch(process.argv).program, launcher);
    for (const name of names) linkSync(launcher, join(staging, name));
    for (const name of names) verify(join(staging, name), name);
    if (how === 'copied') syncFiles(staging);
    placePrivateDirectory(staged, binDir);
    for (const name of names) renameSync(join(staging, name), join(binDir, name));
    removeOldPrivateDirectories(binDir, basename(hidden));
    report(names, binDir, previous, how);
  } catch (error) {
    throw explained(error, binDir);
  } finally {
    rmSync(staging, { recursive: true, force: true });
  }
}

/** What the names of directories begin with where everything is prepared. */
const stagingPrefix = '.cni-install-';
/** After how many milliseconds without a change nobody is still preparing anything. */
const longestPause = 10 * 60_000;

/** A directory on the same file system, where everything is prepared. */
function stage(binDir: string): string {
  try {
    makeDirectory(binDir, 0o755);
    removeUnfinished(binDir);
    return mkdtempSync(join(binDir, stagingPrefix));
  } catch (error) {
    throw explained(error, binDir);
  }
}

/** Removes what installations left that were killed. */
function removeUnfinished(binDir: string): void {
  for (const name of readdirSync(binDir).filter((one) => one.startsWith(stagingPrefix))) {
    const status = lstatSync(join(binDir, name), { throwIfNoEntry: false });
    if (status?.isDirectory() && status.mtimeMs < Date.now() - longestPause)
      rmSync(join(binDir, name), { recursive: true, force: true });
  }
}

/** Runs a plugin under its name, before it gets that name. */
function verify(file: string, name: string): void {
  try {
    if (name === 'cni') {
      const text = execFileSync(file, ['--version'], { encoding: 'utf8', stdio: 'pipe' });
      if (text.startsWith(packageJson.name)) return;
      throw new Error(`it printed: ${text}`);
    }
    const text = execFileSync(file, {
      encoding: 'utf8',
      stdio: 'pipe',
      env: { CNI_COMMAND: 'VERSION' },
      input: '{}',
    });
    const answer: unknown = JSON.parse(text);
    if (!isObject(answer) || !Array.isArray(answer.supportedVersions)) throw new Error(`it printed: ${text}`);
  } catch (cause) {
    throw new CommandError(`Plugin "${name}" does not run on this machine. Nothing was changed`, { cause });
  }
}

function report(
  names: readonly string[],
  binDir: string,
  previous: ReadonlyMap<string, Identity | undefined>,
  how: 'linked' | 'copied',
): void {
  const version = `${packageJson.name} ${packageJson.version}`;
  const rows = names.map((name) => [name, version, previous.get(name)?.description ?? '-']);
  print(formatTable(['PLUGIN', 'INSTALLED', 'REPLACED'], rows).join('\n'));
  const replaced = [...previous.values()].filter((identity) => identity !== undefined).length;
  print(`\n${count(names.length, 'executable')} ${how} to "${binDir}", all tried; ${replaced} replaced.`);
}

function remove(names: readonly string[], binDir: string): void {
  const removed: string[] = [];
  const kept: string[] = [];
  for (const name of names) {
    const file = join(binDir, name);
    const identity = identify(file, name);
    if (!identity) continue;
    if (!identity.isOurs) {
      kept.push(`${name} (${identity.description})`);
      continue;
    }
    try {
      rmSync(file);
    } catch (error) {
      throw explained(error, binDir);
    }
    removed.push(name);
  }
  if (kept.length === 0 || removed.length > 0) removeOldPrivateDirectories(binDir);
  print(
    `${count(removed.length, 'executable')} removed from "${binDir}"${removed.length > 0 ? `: ${removed.join(', ')}` : ''}.`,
  );
  if (kept.length > 0) note(`Kept, because they are not of this suite: ${kept.join(', ')}`);
}

/** What an executable is. */
export interface Identity {
  readonly isOurs: boolean;
  /** What it says of itself. */
  readonly description: string;
}

/** Asks an executable what it is. @returns undefined when there is none. */
export function identify(file: string, name: string): Identity | undefined {
  const status = statSync(file, { throwIfNoEntry: false });
  if (!status?.isFile()) return undefined;
  const self = statSync(readLaunch(process.argv).program);
  const own = `${packageJson.name} ${packageJson.version}`;
  if (status.dev === self.dev && status.ino === self.ino) return { isOurs: true, description: own };
  // Without CNI_COMMAND, a plugin says what it is and does nothing.
  const { stdout, stderr } = spawnSync(file, name === 'cni' ? ['--version'] : [], {
    env: { PATH: process.env.PATH },
    encoding: 'utf8',
    input: '',
    timeout: 5000,
  });
  const [line = ''] = `${stdout ?? ''}${stderr ?? ''}`.split('\n');
  if (name === 'cni')
    return { isOurs: line.startsWith(packageJson.name), description: line || 'an unknown program' };
  const isOurs = line.startsWith(`CNI plugin "${name}":`);
  return {
    isOurs,
    description: isOurs ? suiteVersionBeside(file) : line.slice(0, 60) || 'an unknown program',
  };
}

/** Plugins of this suite do not know its version, but `cni` in the same directory does. */
function suiteVersionBeside(file: string): string {
  const command = join(file, '..', 'cni');
  const [version, plugin] = [command, file].map((path) => statSync(path, { throwIfNoEntry: false }));
  if (!version || version.ino !== plugin?.ino) return `${packageJson.name}, another build`;
  return identify(command, basename(command))!.description;
}

function explained(error: unknown, binDir: string): Error {
  const reasons: Record<string, string> = {
    EROFS: 'its file system is read-only. Mount it writable',
    EACCES: 'permission is denied. Run this as root',
    EPERM: 'permission is denied. Run this as root',
    ENOSPC: 'its file system is full. Make room',
    ENOTDIR: 'it is not a directory, or lies below a file',
    EEXIST: 'it is not a directory',
  };
  const reason = reasons[(error as NodeJS.ErrnoException).code ?? ''];
  if (!reason) return error as Error;
  return new CommandError(`Cannot write to "${binDir}": ${reason}, or give another --bin-dir`, {
    cause: error,
  });
}
