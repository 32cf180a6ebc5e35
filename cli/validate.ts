/** `cni validate [FILE|DIR…]`: what is wrong with network configurations, before a pod finds out. */

import { statSync } from 'node:fs';
import { basename, join } from 'node:path';
import type { CommandModule } from 'yargs';
import type { Suite } from '../main.ts';
import { CommandError, ExitCode } from './errors.ts';
import { excerptOf, offsetOf, positionOf } from './json.ts';
import { configFiles } from './libcni/conflist.ts';
import { configDir, pluginPath } from './network.ts';
import { count, formatTable, paint, print } from './terminal.ts';
import { type CheckedFile, checkFile } from './validate/file.ts';
import type { Finding } from './validate/finding.ts';
import { checkNetworks } from './validate/networks.ts';

interface ValidateArguments {
  paths?: string[];
  binDir?: string[];
  strict: boolean;
  json: boolean;
}

/** The subcommand. @param suite whose schemas the configurations are held against. */
export function validate(suite: Suite): CommandModule<object, ValidateArguments> {
  return {
    command: 'validate [paths..]',
    describe: 'Check network configurations',
    builder: (yargs) =>
      yargs
        .positional('paths', {
          type: 'string',
          array: true,
          describe: 'Files, or directories of them; without any, NETCONFPATH or /etc/cni/net.d',
        })
        .option('bin-dir', {
          type: 'string',
          array: true,
          // One at a time, so that files may follow.
          nargs: 1,
          describe: 'Where plugins must be installed; CNI_PATH or /opt/cni/bin without it',
        })
        .option('strict', { type: 'boolean', default: false, describe: 'Fail on warnings too' })
        .option('json', { type: 'boolean', default: false, describe: 'Print the findings as JSON' })
        .example('$0 validate', 'Check the networks of this host')
        .example(
          '$0 validate --strict conf/10-bridge.conflist',
          'Check one file, as in continuous integration',
        )
        .epilogue(
          'Finds errors of syntax and of type, keys that have no effect, settings that a plugin refuses, plugins that are not installed, ' +
            'networks whose addresses overlap or that share a bridge but not its settings, address ranges that are full, and ' +
            'capabilities that are missing or unused. Tells which network a runtime picks first.\n\n' +
            'The exit code is 1 if there is an error, or with --strict a warning.',
        ),
    handler: async ({ paths = [], binDir, strict, json }) => {
      const files = (paths.length > 0 ? paths : [configDir()]).flatMap(filesAt);
      const checked = [];
      for (const file of files) checked.push(await checkFile(file, suite, installedIn(binDir)));
      checkNetworks(checked);
      if (json) printJson(checked);
      else printReport(checked);
      const findings = checked.flatMap((file) => file.findings);
      if (findings.some(({ severity }) => strict || severity === 'error'))
        process.exitCode = ExitCode.Failure;
    },
  };
}

/** The configuration files of a directory, in the order in which runtimes take them, or the file itself. */
function filesAt(path: string): string[] {
  const status = statSync(path, { throwIfNoEntry: false });
  if (!status) throw new CommandError(`There is no file or directory "${path}"`);
  return status.isDirectory() ? configFiles(path, ['.conf', '.conflist', '.json']) : [path];
}

/**
 * Looks plugins up where the runtime would.
 * @returns undefined when nobody said where that is and the usual place does not exist, as on a build
 *   machine.
 */
function installedIn(binDir: readonly string[] | undefined): ((name: string) => boolean) | undefined {
  const directories = binDir ?? pluginPath();
  const isAsked = binDir !== undefined || Boolean(process.env.CNI_PATH);
  if (!isAsked && !directories.some((directory) => statSync(directory, { throwIfNoEntry: false })))
    return undefined;
  return (name) =>
    directories.some((directory) => statSync(join(directory, name), { throwIfNoEntry: false })?.isFile());
}

/** A finding's place in its file. */
function locate(
  { text, root, syntaxOffset }: CheckedFile,
  { path }: Finding,
): { offset: number; line: number; column: number } {
  const offset = syntaxOffset ?? (root ? offsetOf(root, path) : 0);
  return { offset, ...positionOf(text, offset) };
}

function printJson(files: readonly CheckedFile[]): void {
  const report = files.map((checked) => ({
    file: checked.file,
    network: checked.network?.name ?? null,
    plugins: checked.network?.plugins.map(({ type }) => type) ?? [],
    findings: sorted(checked).map((finding) => {
      const { line, column } = locate(checked, finding);
      return { ...finding, line, column };
    }),
  }));
  print(JSON.stringify({ files: report, first: firstNetwork(files)?.network?.name ?? null }, null, 2));
}

function printReport(files: readonly CheckedFile[]): void {
  for (const checked of files)
    for (const finding of sorted(checked)) {
      const { offset, line, column } = locate(checked, finding);
      const severity = finding.severity === 'error' ? paint('red', 'error') : paint('yellow', 'warning');
      print(`${paint('bold', `${checked.file}:${line}:${column}:`)} ${severity}: ${finding.message}`);
      if (checked.text !== '') print(paint('dim', excerptOf(checked.text, offset).replace(/^/gm, '    ')));
    }
  const findings = files.flatMap((file) => file.findings);
  const errors = findings.filter(({ severity }) => severity === 'error').length;
  const [heading, ...rows] = formatTable(
    ['FILE', 'NETWORK', 'PLUGINS'],
    files.map(({ file, network }) => [
      basename(file),
      network?.name ?? '-',
      network?.plugins.map(({ type }) => type).join(' ') ?? 'cannot be loaded',
    ]),
  );
  if (findings.length > 0) print('');
  if (rows.length > 0) print([paint('bold', heading!), ...rows, ''].join('\n'));
  const first = firstNetwork(files);
  if (first && files.length > 1)
    print(
      `containerd and CRI-O attach pods to network "${first.network!.name}", whose file ${basename(first.file)} comes first.`,
    );
  print(
    `${count(files.length, 'file')}: ${count(errors, 'error')}, ${count(findings.length - errors, 'warning')}.`,
  );
}

/** What a runtime that wants one network takes: the first file by name that it can load. */
function firstNetwork(files: readonly CheckedFile[]): CheckedFile | undefined {
  return files.find(({ network }) => network);
}

function sorted(checked: CheckedFile): Finding[] {
  return checked.findings
    .map((finding) => ({ finding, offset: locate(checked, finding).offset }))
    .sort((a, b) => a.offset - b.offset)
    .map(({ finding }) => finding);
}
