/** What `cni doctor` prints. */

import type { PrintedFinding } from '../printed.ts';
import { count, paint } from '../terminal.ts';
import type { Finding, Severity } from './check.ts';
import type { CheckResult } from './checks.ts';
import type { Attempt } from './fix.ts';

const colours = { error: 'red', warning: 'yellow', info: 'cyan' } as const;

/** Width of the first column. */
const width = 'warning'.length;

/** Lines for people: one for each check that found nothing, three for each finding. */
export function describeResults(results: readonly CheckResult[], fixes: readonly Attempt[]): string[] {
  const lines = results.flatMap(({ title, findings, seen }) =>
    findings.length === 0
      ? [`${paint('green', 'ok'.padEnd(width))}  ${paint('bold', title)}: ${seen}`]
      : findings.flatMap((finding) => describeFinding(title, finding)),
  );
  const fixed = fixes.map(({ check, finding, failure }) =>
    failure === undefined
      ? `${paint('green', 'fixed'.padEnd(width))}  ${paint('bold', check.title)}: ${finding.subject}: a second look no longer finds it`
      : `${paint('red', 'failed'.padEnd(width))}  ${paint('bold', check.title)}: ${finding.subject}: ${failure}`,
  );
  const found = results.flatMap(({ findings }) => findings);
  const number = (severity: Severity) => found.filter((one) => one.severity === severity).length;
  const fixable = found.filter((one) => one.apply).length;
  return [
    ...lines,
    ...(fixed.length > 0 ? ['', ...fixed] : []),
    '',
    `${count(results.length, 'check')}: ${count(number('error'), 'error')}, ${count(number('warning'), 'warning')}, ${count(number('info'), 'note')}.`,
    ...(fixable > 0 && fixes.length === 0 ? [`"cni doctor --fix" fixes ${fixable} of them.`] : []),
  ];
}

function describeFinding(
  title: string,
  { severity, subject, message, cause, fix, apply }: Finding,
): string[] {
  const margin = ' '.repeat(width + 2);
  return [
    `${paint(colours[severity], severity.padEnd(width))}  ${paint('bold', title)}: ${subject}`,
    `${margin}${message.replaceAll('\n', `\n${margin}`)}`,
    `${margin}${paint('dim', 'cause')}  ${cause}`,
    `${margin}${paint('dim', 'fix')}    ${fix}${apply ? paint('dim', '  (or --fix)') : ''}`,
  ];
}

/** The same for programs. */
export function resultsAsJson(results: readonly CheckResult[], fixes: readonly Attempt[]): object {
  return {
    checks: results.map(({ findings, ...check }) => ({
      ...check,
      findings: findings.map((finding) => printedFinding(check.id, finding)),
    })),
    fixes: fixes.map(({ check, finding, failure }) => ({
      ...printedFinding(check.id, finding),
      fixed: failure === undefined,
      ...(failure !== undefined && { failure }),
    })),
  };
}

/** A finding, and whether `--fix` mends it. */
type DoctorFinding = PrintedFinding & Omit<Finding, 'apply' | 'key'> & { readonly fixable: boolean };

/** @param rule the check that found it. */
function printedFinding(rule: string, { apply, key, severity, ...finding }: Finding): DoctorFinding {
  return { severity, rule, ...finding, fixable: apply !== undefined };
}
