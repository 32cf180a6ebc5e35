/** The error object of the specification, section "Error", from whatever a verb threw. */

import { CniError, ErrorCode } from '../errors.ts';
import { missingCapabilities, withMissing } from '../kernel/capabilities.ts';
import type { Environment } from './invocation.ts';
import { formatJson } from './result.ts';

/** What the runtime sees of an error. */
export interface ErrorObject {
  readonly code: number;
  readonly msg: string;
  readonly details?: string | undefined;
}

/** Describes an error. @param environment of the call: with CNI_DEBUG, the details are the stack. */
export function errorObject(error: unknown, environment: Environment = {}): ErrorObject {
  const { code, details } =
    error instanceof CniError ? error : { code: ErrorCode.Internal, details: causeOf(error) };
  const stack = environment.CNI_DEBUG && error instanceof Error ? error.stack : undefined;
  return { code, msg: withMissingCapabilities(error), details: stack ?? details };
}

/** The text of an error as a plugin prints it. */
export function formatError(error: unknown, cniVersion?: string, environment: Environment = {}): string {
  return formatJson({ cniVersion, ...errorObject(error, environment) });
}

/** How the kernel and programs report a lack of permission. */
const refusal = /\bEPERM\b|\bEACCES\b|operation not permitted|permission denied/i;

/** The message of an error; if it is about permissions, with the capabilities that the process lacks. */
function withMissingCapabilities(error: unknown): string {
  const message = error instanceof Error ? error.message : String(error);
  const details = error instanceof CniError ? error.details : causeOf(error);
  if (message.includes('CAP_') || !refusal.test(`${message} ${details}`)) return message;
  return withMissing(message, missingCapabilities());
}

function causeOf(error: unknown): string | undefined {
  return error instanceof Error && error.cause instanceof Error ? error.cause.message : undefined;
}
