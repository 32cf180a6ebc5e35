/** What `cni validate` finds. */

import type { PrintedFinding } from '../printed.ts';

/** Something amiss in a configuration, or likely to surprise. */
export interface Finding extends PrintedFinding {
  /** An error keeps pods from being attached or makes networks clash; a warning may be intended. */
  readonly severity: 'error' | 'warning';
  /** Where in the configuration, such as `plugins[0].ipam.subnet`; "" for all of it. */
  readonly path: string;
}

/** A finding that keeps pods from being attached, or makes networks clash. */
export function error(rule: string, path: string, message: string): Finding {
  return { severity: 'error', rule, message, path };
}

/** A finding that may be intended. */
export function warning(rule: string, path: string, message: string): Finding {
  return { severity: 'warning', rule, message, path };
}

/** Joins the parts of a path. */
export function at(path: string, key: string): string {
  return path === '' ? key : `${path}.${key}`;
}
