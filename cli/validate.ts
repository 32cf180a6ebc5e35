/** `cni validate [FILE|DIR…]`: what is wrong with network configurations, before a pod finds out. */

import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { statusAt } from '../lib/file.ts';
import type { Suite } from '../main.ts';
import { CommandError, ExitCode } from './errors.ts';
import { withFormat } from './format.ts';
import { configFiles } from './libcni/conflist.ts';
import { configDir, pluginPath, standardInput } from './settings.ts';
import type { Subcommand } from './subcommand.ts';
import { note } from './terminal.ts';
import { checkFile } from './validate/file.ts';
import { checkNetworks } from './validate/networks.ts';
import { type Format, formatNames, formats } from './validate/report.ts';

interface ValidateArguments {
  paths?: string[];
  binDir?: string[];
  strict: boolean;
  format: Format;
  host: boolean;
}

/** The subcommand. @param suite whose schemas the configurations are checked against. */
export function validate(suite: Suite): Subcommand<ValidateArguments> {
  return {
    builder: (yargs) =>
      withFormat(
        yargs,
        formatNames,
        'How to print the findings: for people, for programs, or as annotations of GitHub',
      )
        .positional('paths', {
          type: 'string',
          array: true,
          describe:
            'Files, or directories of them, or "-" for standard input; without any, NETCONFPATH or /etc/cni/net.d',
        })
        .option('bin-dir', {
          type: 'string',
          array: true,
          // One at a time, so that files may follow.
          nargs: 1,
          describe: 'Where plugins must be installed; without it, CNI_PATH or where runtimes look',
        })
        .option('strict', { type: 'boolean', default: false, describe: 'Fail on warnings too' })
        .option('host', {
          type: 'boolean',
          default: true,
          describe:
            'Check against this host; --no-host for configurations of others, as in continuous integration',
        })
        .example('$0 validate', 'Check the networks of this host')
        .example(
          '$0 validate --no-host --strict conf/10-bridge.conflist',
          'Check one file, as in continuous integration',
        )
        .epilogue(
          'Finds errors of syntax and of type, keys that have no effect, settings that a plugin refuses, plugins that are not installed, ' +
            'networks whose addresses overlap or that share a bridge but not its settings, address ranges that are full, and ' +
            'capabilities that are missing or unused; and, as root, what plugins miss on this host. Tells which network a runtime picks first.\n\n' +
            'The exit code is 1 if there is an error, or with --strict a warning.',
        ),
    handler: async ({ paths = [], binDir, strict, format, host }) => {
      const files = paths.length > 0 ? paths.flatMap(filesAt) : filesIn(configDir());
      const path = binDir ?? pluginPath();
      const isInstalled = host ? installedIn(path, binDir !== undefined) : undefined;
      const isRoot = process.getuid?.() === 0;
      if (isInstalled && !isRoot)
        note('Not checked: what the plugins need of this host. Run this as root, or give --no-host.');
      const hostPath = isInstalled && isRoot ? path : undefined;
      const options = { suite, isInstalled, hostPath, looksAtUse: host };
      const checked = [];
      for (const file of files) checked.push(await checkFile(file, options));
      checkNetworks(checked);
      formats[format](checked);
      const findings = checked.flatMap((file) => file.findings);
      if (findings.some(({ severity }) => strict || severity === 'error'))
        process.exitCode = ExitCode.Failure;
    },
  };
}

/** The endings of the names of files that runtimes read. */
const endings = ['.conf', '.conflist', '.json'];

/** The configuration files of a directory, or the file itself. */
function filesAt(path: string): string[] {
  if (path === standardInput) return [path];
  const status = statSync(path, { throwIfNoEntry: false });
  if (!status) throw new CommandError(`There is no file or directory "${path}". Correct the path`);
  return status.isDirectory() ? filesIn(path) : [path];
}

/** A directory's files, in the order in which runtimes take them. @throws CommandError when it has none. */
function filesIn(path: string): string[] {
  const files = configFiles(path, endings);
  if (files.length > 0) return files;
  throw new CommandError(
    readdirSync(path).length === 0
      ? `Directory "${path}" is empty, so that no pod gets a network. Make one with "cni network create NAME"`
      : `Directory "${path}" has no file whose name ends in ${endings.join(', ')}, and runtimes read no others`,
  );
}

/**
 * Looks plugins up where the runtime would.
 * @returns undefined when nobody said where that is and the usual place does not exist, as on a build
 *   machine.
 */
function installedIn(
  directories: readonly string[],
  isGiven: boolean,
): ((name: string) => boolean) | undefined {
  const isAsked = isGiven || Boolean(process.env.CNI_PATH);
  if (!isAsked && !directories.some(statusAt)) return undefined;
  return (name) => directories.some((directory) => statusAt(join(directory, name))?.isFile());
}
