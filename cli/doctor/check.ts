/** What a check of `cni doctor` is, and what it finds. */

import type { Context } from './context.ts';

/** An error breaks connections or attachments, a warning may do so, an info is just for information. */
export type Severity = 'error' | 'warning' | 'info';

/** Something amiss on the host. */
export interface Finding {
  readonly severity: Severity;
  /** What it is about: a kernel setting, a chain, a pod, a file. */
  readonly subject: string;
  /** Distinguishes it from other findings of its check; the subject when left out. */
  readonly key?: string;
  /** What is wrong, and how it should be. */
  readonly message: string;
  /** Why, as far as can be told. */
  readonly cause: string;
  /** The command line that fixes it or, where no command can, what to do. */
  readonly fix: string;
  /** Applies the fix, where that can do no harm; a second look shows whether it worked. */
  readonly apply?: () => Promise<void> | void;
}

/** The result of a check. */
export interface Outcome {
  readonly findings: readonly Finding[];
  /** What was looked at, for the line that says that all is well. */
  readonly seen: string;
}

/** One check of the host. */
export interface Check {
  /** Identifies it for programs. */
  readonly id: string;
  readonly title: string;
  /** Looks at the host. Nothing is changed. @throws Error when that is not possible. */
  run(context: Context): Promise<Outcome> | Outcome;
}

/** Quotes a word for the shell where needed. */
export function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}

/** The command that removes interfaces of the host. */
export function linkRemoval(names: readonly string[]): string {
  return names.map((name) => `ip link del ${shellWord(name)}`).join(' && ');
}
