/** Versions of the CNI specification. */

import { CniError, ErrorCode } from '../errors.ts';

/** Every version of the specification that the suite speaks, oldest first. */
export const specVersions = ['0.1.0', '0.2.0', '0.3.0', '0.3.1', '0.4.0', '1.0.0', '1.1.0'] as const;

/** The newest version, in which VERSION is answered. */
export const newestVersion = '1.1.0';

/**
 * Compares two versions by number; missing parts count as zero, and no version at all is 0.1.0.
 * @returns negative, zero or positive.
 * @throws CniError DecodingFailure when either is no version.
 */
export function compareVersions(a: string, b: string): number {
  const left = parseVersion(a);
  const right = parseVersion(b);
  for (let i = 0; i < 3; i++) if (left[i] !== right[i]) return left[i]! - right[i]!;
  return 0;
}

/** True when `version` is `minimum` or newer. @throws CniError as {@link compareVersions}. */
export function atLeast(version: string, minimum: string): boolean {
  return compareVersions(version, minimum) >= 0;
}

function parseVersion(text: string): number[] {
  if (text === '') return [0, 1, 0];
  if (!/^\d{1,9}(\.\d{1,9}){0,2}$/.test(text))
    throw new CniError(
      ErrorCode.DecodingFailure,
      `"cniVersion" is "${text.slice(0, 80)}", but it must be a version such as "${newestVersion}"`,
    );
  const parts = text.split('.').map(Number);
  return [parts[0] ?? 0, parts[1] ?? 0, parts[2] ?? 0];
}
