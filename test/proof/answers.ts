/** What a plugin may answer, whatever has befallen it. */

import type { Output } from '../support/run.ts';

/**
 * What is wrong with an answer; "" when it is a success, or an error as the CNI specification has it. One that
 * could not be written must be missed on standard error.
 */
export function answerProblem({
  exit,
  stdout,
  stderr,
  isLate = false,
  isUnheard = false,
}: Output & { readonly isLate?: boolean; readonly isUnheard?: boolean }): string {
  if (isLate) return 'It did not end';
  if (/(?:^|\\n|\n)\s+at .*[:(]/.test(stdout + stderr)) return `It showed a stack trace: ${stdout}${stderr}`;
  if (exit === 0) return '';
  if (isUnheard && stdout === '' && /The (?:result|error) could not be written/.test(stderr)) return '';
  if (typeof exit === 'string') return `It was ended by ${exit}: ${stderr}`;
  try {
    const { code, msg } = JSON.parse(stdout) as { code?: unknown; msg?: unknown };
    if (Number.isInteger(code) && (code as number) > 0 && typeof msg === 'string' && msg !== '') return '';
  } catch {
    // Said below.
  }
  return `It ended with ${exit}, and what it printed is no CNI error: "${stdout}" ${stderr}`;
}
