/** How the command fails. */

/** Exit codes, as `cni --help` lists them. */
export const ExitCode = {
  Success: 0,
  /** What was asked for could not be done, or problems were found. */
  Failure: 1,
  /** The command line itself is wrong. */
  Usage: 2,
} as const;

/** A failure whose message is all that the operator needs. */
export class CommandError extends Error {
  readonly exitCode: number;

  constructor(message: string, options: { exitCode?: number; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.name = 'CommandError';
    this.exitCode = options.exitCode ?? ExitCode.Failure;
  }
}

/** The text for standard error: the message, and what the kernel, a plugin or the file system had to say. */
export function describeError(error: unknown): string {
  if (!(error instanceof Error)) return String(error);
  const details = 'details' in error && typeof error.details === 'string' ? error.details : undefined;
  const cause = error.cause instanceof Error ? describeError(error.cause) : undefined;
  // The cause of an error is often the same as its details.
  return [...new Set([error.message, details, cause])].filter((part) => part).join('\n  ');
}
