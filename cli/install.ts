/** `cni install`: puts the plugins where runtimes look for them, while pods come and go. */

import { execFileSync } from 'node:child_process';
import { linkSync, readdirSync, renameSync, statSync } from 'node:fs';
import { basename, join, resolve } from 'node:path';
import { readLaunch } from '../launcher/launch.ts';
import { statusAt } from '../lib/file.ts';
import type { Suite } from '../main.ts';
import packageJson from '../package.json' with { type: 'json' };
import { CommandError, ExitCode } from './errors.ts';
import { Backup, type Changes } from './install/backup.ts';
import { type Identity, identify, ownVersion, privateDirectoryOf } from './install/identity.ts';
import {
  copyFile,
  copyPrivateDirectory,
  ownPrivateDirectory,
  placePrivateDirectory,
  removeOldPrivateDirectories,
  syncFiles,
} from './install/private-directory.ts';
import { changeDirectory } from './install/staging.ts';
import { checkUnits, installUnits, removeUnits } from './install/systemd.ts';
import { versionsOf } from './plugin-versions.ts';
import type { Subcommand } from './subcommand.ts';
import { count, formatTable, note, print } from './terminal.ts';

interface InstallArguments {
  'bin-dir': string;
  agent: boolean;
  rollback: boolean;
  uninstall: boolean;
}

/** The subcommand. @param suite whose names are installed. */
export function install(suite: Suite): Subcommand<InstallArguments> {
  const names = [...suite.plugins.keys(), ...suite.ipam.keys(), 'cni'];
  return {
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
        .option('rollback', {
          type: 'boolean',
          default: false,
          describe: 'Put back what the last installation replaced, and remove what it added',
        })
        .option('uninstall', {
          type: 'boolean',
          default: false,
          describe:
            "Remove the plugins of this suite and the agent's units, and put back the plugins of another suite that they replaced",
        })
        .check(({ agent, rollback, uninstall }) => {
          if ([agent, rollback, uninstall].filter(Boolean).length > 1)
            throw new CommandError(
              '--agent, --rollback and --uninstall exclude one another. Give one of them',
              {
                exitCode: ExitCode.Usage,
              },
            );
          return true;
        })
        .example('$0 install', 'Install into /opt/cni/bin')
        .example('$0 install --agent', 'The same, and start the agent')
        .example('$0 install --bin-dir /host/opt/cni/bin', 'Install on the host, from a container')
        .example('$0 install --rollback', 'Go back to what was there before the last installation')
        .example('$0 install --uninstall', 'Remove what was installed, and put back what it replaced')
        .epilogue(
          'Each plugin is replaced in one step, so that no ADD fails meanwhile, and only after all have been tried. ' +
            'What is replaced is kept in ".cni-backup" beside the plugins. Plugins of other names are kept, and those ' +
            'that somebody else has put in the place of this suite.',
        ),
    handler: async ({ 'bin-dir': directory, agent, rollback, uninstall }) => {
      const binDir = resolve(directory);
      if (rollback || uninstall) {
        if (!statSync(binDir, { throwIfNoEntry: false }))
          throw new CommandError(
            `There is no directory "${binDir}", so that nothing is installed there. Give another --bin-dir`,
          );
        await (uninstall ? remove(names, binDir) : rollBack(binDir));
      } else {
        if (agent) checkUnits(binDir);
        await replace(names, binDir);
        if (agent) installUnits(binDir);
      }
    },
  };
}

async function replace(names: readonly string[], binDir: string): Promise<void> {
  const hidden = ownPrivateDirectory();
  await changeDirectory(binDir, (staging) => {
    const backup = new Backup(binDir);
    const previous = new Map(names.map((name) => [name, identify(join(binDir, name), name)]));
    const blocked = names.find((name) => statusAt(join(binDir, name))?.isDirectory());
    if (blocked)
      throw new CommandError(`"${join(binDir, blocked)}" is a directory. Remove it. Nothing was changed`);
    const staged = join(staging, basename(hidden));
    copyPrivateDirectory(hidden, staged);
    const launcher = join(staging, 'launcher');
    copyFile(readLaunch(process.argv).program, launcher);
    for (const name of names) linkSync(launcher, join(staging, name));
    for (const name of names) verify(join(staging, name), name);
    syncFiles(staging);
    placePrivateDirectory(staged, binDir);
    backup.save(previous, basename(hidden), staging);
    moveAll(names, staging, binDir, backup);
    removeUnneeded(binDir, backup);
    report(names, binDir, previous);
    if (backup.canRollBack)
      print(`What was there before is kept in "${backup.directory}": "cni install --rollback" puts it back.`);
  });
}

/** Moves each plugin to its final name. @throws CommandError when that succeeds for some, but not for all. */
function moveAll(names: readonly string[], staging: string, binDir: string, backup: Backup): void {
  for (const [i, name] of names.entries())
    try {
      renameSync(join(staging, name), join(binDir, name));
    } catch (cause) {
      if (i === 0) throw cause;
      const orBack = backup.canRollBack ? ', or "cni install --rollback" to go back' : '';
      throw new CommandError(
        `${i} of ${names.length} executables in "${binDir}" were replaced, but "${name}" and those after it cannot be. ` +
          `Remove what is in the way, and run "cni install" again${orBack}`,
        { cause },
      );
    }
}

/** Runs a staged plugin under its name, before it replaces the installed one. */
function verify(file: string, name: string): void {
  try {
    if (name === 'cni') {
      const text = execFileSync(file, ['--version'], { encoding: 'utf8', stdio: 'pipe' });
      if (text.startsWith(packageJson.name)) return;
      throw new Error(`it printed: ${text}`);
    }
    const versions = versionsOf(file);
    if (typeof versions === 'string') throw new Error(versions);
  } catch (cause) {
    throw new CommandError(`Plugin "${name}" does not run on this machine. Nothing was changed`, { cause });
  }
}

function report(
  names: readonly string[],
  binDir: string,
  previous: ReadonlyMap<string, Identity | undefined>,
): void {
  const rows = names.map((name) => [name, ownVersion, previous.get(name)?.description ?? '-']);
  print(formatTable(['PLUGIN', 'INSTALLED', 'REPLACED'], rows).join('\n'));
  const replaced = [...previous.values()].filter((identity) => identity !== undefined).length;
  print(`\n${count(names.length, 'executable')} copied to "${binDir}", all tried; ${replaced} replaced.`);
}

async function rollBack(binDir: string): Promise<void> {
  await changeDirectory(binDir, () => {
    const backup = new Backup(binDir);
    if (!backup.canRollBack)
      throw new CommandError(
        `There is nothing to go back to: no installation has replaced anything in "${binDir}" since the last ` +
          'rollback. Nothing was changed. "cni install --uninstall" removes this suite',
      );
    const [missing] = backup.missingPrivateDirectories();
    if (missing)
      throw new CommandError(
        `What was installed before cannot run without "${join(binDir, missing)}", which is gone. Nothing was changed. ` +
          `Install that version again`,
      );
    const changes = backup.rollBack();
    if (!identify(join(binDir, 'cni'), 'cni')?.isOurs) removeUnits(binDir);
    removeUnneeded(binDir, backup, { sparesNewest: true });
    reportChanges(changes, binDir);
  });
}

async function remove(names: readonly string[], binDir: string): Promise<void> {
  await changeDirectory(binDir, () => {
    removeUnits(binDir);
    const backup = new Backup(binDir);
    const changes = backup.restoreOriginals(names);
    removeUnneeded(binDir, backup);
    reportChanges(changes, binDir);
  });
}

/** Removes the private directories that no launcher in this directory or in its backup needs. */
function removeUnneeded(binDir: string, backup: Backup, { sparesNewest = false } = {}): void {
  const used = readdirSync(binDir).flatMap((name) => privateDirectoryOf(join(binDir, name)) ?? []);
  removeOldPrivateDirectories(binDir, [...used, ...backup.neededPrivateDirectories()], { sparesNewest });
}

function reportChanges({ restored, removed, kept }: Changes, binDir: string): void {
  if (restored.size > 0) print(`${formatTable(['PLUGIN', 'PUT BACK'], [...restored]).join('\n')}\n`);
  if (restored.size > 0) print(`${count(restored.size, 'executable')} put back in "${binDir}".`);
  print(
    `${count(removed.length, 'executable')} removed from "${binDir}"${removed.length > 0 ? `: ${removed.join(', ')}` : ''}.`,
  );
  const others = [...kept].map(([name, description]) => `${name} (${description})`);
  if (others.length > 0) note(`Kept, because they are not of this suite: ${others.join(', ')}`);
}
