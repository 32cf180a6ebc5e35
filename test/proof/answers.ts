/** What a plugin may answer, whatever fault it has met. */

import { ErrorCode } from '../../lib/errors.ts';
import type { Output } from '../support/run.ts';

/** How a verb ended, and what is known of its fault. */
export interface Befallen extends Output {
  readonly isLate?: boolean;
  /** Whether it is writing the answer that failed. */
  readonly isUnheard?: boolean;
  /** CNI_COMMAND; "CHECK-LOST" for CHECK of what is no longer there. */
  readonly verb?: string | undefined;
  /** The system call that failed, as strace(1) shows it with the paths of descriptors. */
  readonly failed?: string | undefined;
}

/**
 * Files that plugins read, write or lock, also by the descriptor of their directory, and the directory that is
 * made for a lock.
 */
const ownFile =
  /^\w+\((?:\d+<|(?:AT_FDCWD<[^>]*>, )?")\/(?:(?:run\/(?:containers\/)?cni|run\/xtables\.lock|var\/lib\/cni|usr\/sbin\/xtables-|proc\/self\/fd\/\d+)\b|run")/;

/** Files of the operator: one that cannot be read may be told of among others that do not have a network. */
const configuration = /^openat\([^"]*"\/etc\/(?:kubernetes\/)?cni\b/;

/** Sending to a server, which then seems to be away. */
const message = /^write\(\d+<(?:socket|UNIX)/;

/**
 * Text in an error of DEL by which containerd takes the attachment for removed, whatever the code: the second
 * only when the sandbox is gone. Source: go-cni, Remove().
 */
const takenForDone = /not found|no such file or directory/;

/**
 * What is wrong with an answer; "" when it is a success, or an error as the CNI specification has it, with
 * the code that {@link ErrorCode} has for it. An answer that could not be written must be reported on
 * standard error.
 * @param codes the right ones; by default those for the system call that failed.
 */
export function answerProblem(outcome: Befallen, codes = codesFor(outcome)): string {
  const { exit, stdout, stderr, isLate = false, isUnheard = false, verb } = outcome;
  if (isLate) return 'It did not end';
  if (/(?:^|\\n|\n)\s+at .*[:(]/.test(stdout + stderr)) return `It showed a stack trace: ${stdout}${stderr}`;
  if (exit === 0) return '';
  if (isUnheard && stdout === '' && /The (?:result|error) could not be written/.test(stderr)) return '';
  if (typeof exit === 'string') return `It was ended by ${exit}: ${stderr}`;
  const error = readError(stdout);
  if (!error) return `It ended with ${exit}, and what it printed is no CNI error: "${stdout}" ${stderr}`;
  if (!codes.includes(error.code)) return `Its code is none of ${codes.join(', ')}: ${stdout}`;
  if (verb === 'DEL' && takenForDone.test(`${error.msg} ${error.details}`))
    return `containerd takes this for a success: ${stdout}`;
  return '';
}

/** The right codes for a system call that failed. See {@link ErrorCode}. */
function codesFor({ verb, failed }: Befallen): readonly number[] {
  const { IOFailure, Internal, NotAvailable, TryAgainLater, UnknownContainer } = ErrorCode;
  // Whatever has failed, no ADD can be served.
  if (verb === 'STATUS') return [NotAvailable, IOFailure, TryAgainLater];
  if (failed === undefined) return [IOFailure, TryAgainLater, Internal];
  // CHECK may have gone on, and found something amiss.
  const found = { CHECK: [Internal], 'CHECK-LOST': [Internal, UnknownContainer] }[verb ?? ''] ?? [];
  if (configuration.test(failed)) return [IOFailure, Internal, ...found];
  if (ownFile.test(failed)) return [IOFailure, ...found];
  return [message.test(failed) ? TryAgainLater : Internal, ...found];
}

function readError(stdout: string): { code: number; msg: string; details?: unknown } | undefined {
  try {
    const { code, msg, details } = JSON.parse(stdout) as Record<string, unknown>;
    if (typeof code === 'number' && typeof msg === 'string' && msg !== '') return { code, msg, details };
  } catch {
    // None.
  }
  return undefined;
}
