/** What can go wrong with a request to the Kubernetes API. */

import { CniError, ErrorCode } from '../errors.ts';
import { isObject } from '../object.ts';

/**
 * How a request failed:
 * - unreachable: nobody answered in time;
 * - tls: one side does not trust the other's certificate, or does not speak TLS;
 * - unauthorized, forbidden, conflict, invalid: HTTP status 401, 403, 409, 422;
 * - not-found: HTTP status 404, by which the API says that there is no object of that name;
 * - busy: the server is overloaded or cannot reach its storage, HTTP status 429 or 5xx;
 * - refused: any other HTTP status;
 * - garbled: what answered does not speak as the API does, or does not serve the kind of object.
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

const failures: Readonly<Record<number, Failure>> = {
  401: 'unauthorized',
  403: 'forbidden',
  409: 'conflict',
  422: 'invalid',
};

/**
 * How a request failed, by the HTTP status and the JSON object that it was answered with. Source:
 * "NewNotFound" of apimachinery's api/errors.
 */
export function failureOf(status: number, { kind, reason, details }: Record<string, unknown>): Failure {
  if (status !== 404) return failures[status] ?? (status >= 500 || status === 429 ? 'busy' : 'refused');
  // A wrong path, a kind that is not served yet, and proxies give 404 as well: only this speaks of an object.
  const isOfObject = isObject(details) && typeof details.name === 'string' && details.name !== '';
  return kind === 'Status' && reason === 'NotFound' && isOfObject ? 'not-found' : 'garbled';
}

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
