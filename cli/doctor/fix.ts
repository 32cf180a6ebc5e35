/** What `cni doctor --fix` does. */

import { describeError } from '../errors.ts';
import type { Finding } from './check.ts';
import type { CheckResult } from './checks.ts';

/** An attempt to fix a finding. */
export interface Attempt {
  readonly check: Pick<CheckResult, 'id' | 'title'>;
  readonly finding: Finding;
  /** Why it is still there; undefined when a second look no longer finds it. */
  readonly failure: string | undefined;
}

/**
 * Fixes what can be fixed without harm, and looks again.
 * @param lookAgain does all the checks once more.
 * @returns what was tried, and what the second look found.
 */
export async function fixAll(
  results: readonly CheckResult[],
  lookAgain: () => Promise<CheckResult[]>,
): Promise<{ fixes: Attempt[]; results: readonly CheckResult[] }> {
  const tried: { check: CheckResult; finding: Finding; error: string | undefined }[] = [];
  for (const check of results)
    for (const finding of check.findings) {
      if (!finding.apply) continue;
      try {
        await finding.apply();
        tried.push({ check, finding, error: undefined });
      } catch (error) {
        tried.push({ check, finding, error: describeError(error) });
      }
    }
  if (tried.length === 0) return { fixes: [], results };
  const after = await lookAgain();
  const fixes = tried.map(({ check, finding, error }) => {
    const still = after
      .find(({ id }) => id === check.id)
      ?.findings.some((one) => keyOf(one) === keyOf(finding) || one.subject === check.title);
    return { check, finding, failure: still ? (error ?? 'a second look still finds it') : undefined };
  });
  return { fixes, results: after };
}

function keyOf({ key, subject }: Finding): string {
  return key ?? subject;
}
