/** What a check of `cni doctor` is, and what it finds. */

import type { Context } from './context.ts';

/** An error breaks connections or attachments, a warning may do so, an info is for the operator to know. */
export type Severity = 'error' | 'warning' | 'info';

/** Something amiss on the host. */
export interface Finding {
  readonly severity: Severity;
  /** What it is about: a kernel setting, a chain, a pod, a file. */
  readonly subject: string;
  /** Tells it from others of its check; the subject when left out. */
  readonly key?: string;
  /** What is so, and what should be. */
  readonly message: string;
  /** Why it is so, as far as can be told. */
  readonly cause: string;
  /** The command line that fixes it or, where no command can, what to do. */
  readonly fix: string;
  /** Does so, where that cannot harm anything; what it has done is looked at afterwards. */
  readonly apply?: () => Promise<void> | void;
}

/** What a check has come to. */
export interface Outcome {
  readonly findings: readonly Finding[];
  /** What was looked at, for the line that says that all is well. */
  readonly seen: string;
}

/** One of the things that are looked at. */
export interface Check {
  /** For programs. */
  readonly id: string;
  readonly title: string;
  /** Looks at the host. Nothing is changed. @throws Error when it cannot be looked at. */
  run(context: Context): Promise<Outcome> | Outcome;
}

/** Quotes a word for the shell where it needs that. */
export function shellWord(word: string): string {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
