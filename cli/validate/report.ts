/** What `cni validate` prints, in each of its formats. */

import { basename } from 'node:path';
import packageJson from '../../package.json' with { type: 'json' };
import { excerptOf, offsetOf, positionOf } from '../json.ts';
import { count, formatTable, paint, print } from '../terminal.ts';
import type { CheckedFile } from './file.ts';
import type { Finding } from './finding.ts';

/** The formats, by the name that `--format` takes. */
export const formats = {
  text: printText,
  json: printJson,
  sarif: printSarif,
  github: printGithub,
} as const satisfies Record<string, (files: readonly CheckedFile[]) => void>;

export type Format = keyof typeof formats;

/** Their names, beginning with the format for people. */
export const formatNames = Object.keys(formats) as [Format, ...Format[]];

/** A finding with its place in its file; lines and columns count from 1. */
interface LocatedFinding extends Finding {
  readonly file: string;
  readonly offset: number;
  readonly line: number;
  readonly column: number;
}

/** The findings of a file, in the order of their positions. */
function located(checked: CheckedFile): LocatedFinding[] {
  const { file, text, root, syntaxOffset } = checked;
  return checked.findings
    .map((finding) => {
      const offset = syntaxOffset ?? (root ? offsetOf(root, finding.path) : 0);
      return { ...finding, file, offset, ...positionOf(text, offset) };
    })
    .toSorted((a, b) => a.offset - b.offset);
}

/** The networks chosen by runtimes that attach pods to a single one. */
interface Choice {
  /** The first file, which containerd insists on: it loads nothing if that file cannot be used. */
  readonly containerd: CheckedFile | undefined;
  /** The first file that can be used. */
  readonly crio: CheckedFile | undefined;
}

function choose(files: readonly CheckedFile[]): Choice {
  const [first] = files;
  return { containerd: first?.network && first, crio: files.find(({ network }) => network) };
}

function printJson(files: readonly CheckedFile[]): void {
  const report = files.map((checked) => ({
    file: checked.file,
    network: checked.network?.name ?? null,
    plugins: checked.network?.plugins.map(({ type }) => type) ?? [],
    findings: located(checked).map(({ file: _, offset: __, ...finding }) => finding),
  }));
  const { containerd, crio } = choose(files);
  const chosen = { containerd: containerd?.network?.name ?? null, crio: crio?.network?.name ?? null };
  print(JSON.stringify({ files: report, chosen }, null, 2));
}

/** Source: SARIF 2.1.0 (OASIS), sections 3.13 to 3.30. */
function printSarif(files: readonly CheckedFile[]): void {
  const results = files.flatMap(located).map(({ severity, rule, message, file, line, column }) => ({
    ruleId: rule,
    level: severity,
    message: { text: message },
    locations: [
      {
        physicalLocation: {
          artifactLocation: { uri: encodeURI(file) },
          region: { startLine: line, startColumn: column },
        },
      },
    ],
  }));
  const rules = [...new Set(results.map(({ ruleId }) => ruleId))].map((id) => ({ id }));
  const driver = { name: 'cni validate', version: packageJson.version, rules };
  print(
    JSON.stringify(
      {
        $schema: 'https://json.schemastore.org/sarif-2.1.0.json',
        version: '2.1.0',
        runs: [{ tool: { driver }, results }],
      },
      null,
      2,
    ),
  );
}

/** Source: GitHub Actions, "Workflow commands": what would end a value early is escaped. */
function printGithub(files: readonly CheckedFile[]): void {
  const data = (text: string) => text.replaceAll('%', '%25').replaceAll('\r', '%0D').replaceAll('\n', '%0A');
  const property = (text: string) => data(text).replaceAll(':', '%3A').replaceAll(',', '%2C');
  for (const { severity, rule, message, file, line, column } of files.flatMap(located))
    print(
      `::${severity} file=${property(file)},line=${line},col=${column},title=${property(rule)}::${data(message)}`,
    );
}

function printText(files: readonly CheckedFile[]): void {
  for (const checked of files)
    for (const { severity, message, offset, line, column } of located(checked)) {
      const label = severity === 'error' ? paint('red', 'error') : paint('yellow', 'warning');
      print(`${paint('bold', `${checked.file}:${line}:${column}:`)} ${label}: ${message}`);
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
  print([paint('bold', heading!), ...rows, ''].join('\n'));
  if (files.length > 1) print(describeChoice(files));
  print(
    `${count(files.length, 'file')}: ${count(errors, 'error')}, ${count(findings.length - errors, 'warning')}.`,
  );
}

function describeChoice(files: readonly CheckedFile[]): string {
  const { containerd, crio } = choose(files);
  const named = ({ network, file }: CheckedFile) => `network "${network!.name}" of ${basename(file)}`;
  if (!crio) return 'No runtime can load any of these files.';
  if (containerd) return `containerd and CRI-O attach pods to ${named(containerd)}, which comes first.`;
  return (
    `containerd loads no network at all, as ${basename(files[0]!.file)}, which comes first, cannot be used. ` +
    `CRI-O attaches pods to ${named(crio)}.`
  );
}
