/** What can go wrong with a request to the Kubernetes API. */

import { CniError, ErrorCode } from '../errors.ts';

/**
 * How a request failed:
 * - unreachable: nobody answered in time;
 * - tls: one side does not trust the other's certificate, or does not speak TLS;
 * - unauthorized, forbidden, not-found, conflict, invalid: HTTP status 401, 403, 404, 409, 422;
 * - busy: the server is overloaded or cannot reach its storage, HTTP status 429 or 5xx;
 * - refused: any other HTTP status;
 * - garbled: what answered does not speak as the API does.
 */
export type Failure =
  | 'unreachable'
  | 'tls'
  | 'unauthorized'
  | 'forbidden'
  | 'not-found'
  | 'conflict'
  | 'invalid'
  | 'busy'
  | 'refused'
  | 'garbled';

/** A request that failed, with a message for operators; it is worth trying again in all cases. */
export class KubernetesError extends CniError {
  override readonly name = 'KubernetesError';
  readonly failure: Failure;
  /** HTTP status; undefined when there was none. */
  readonly status: number | undefined;
  /** "reason" of the API's Status object, such as "AlreadyExists"; "" for none. */
  readonly reason: string;

  /**
   * @param message what is wrong, and what to do.
   * @param details what the API or the connection said.
   */
  constructor(
    failure: Failure,
    message: string,
    { status, reason = '', details }: { status?: number; reason?: string; details?: string } = {},
  ) {
    super(ErrorCode.TryAgainLater, message, details);
    this.failure = failure;
    this.status = status;
    this.reason = reason;
  }
}

/** True when a request failed in that way. */
export function failedAs(error: unknown, ...failures: readonly Failure[]): boolean {
  return error instanceof KubernetesError && failures.includes(error.failure);
}
