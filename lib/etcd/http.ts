/** JSON over HTTP or HTTPS, as etcd's gateway speaks it. */

import { type Connections, type Endpoint, exchange, type Tls } from '../http.ts';
import { isObject } from '../object.ts';

/** Something answered that it will not do what it was asked. */
export class HttpError extends Error {
  override readonly name = 'HttpError';
  /** Status code of gRPC; undefined when what answered is no etcd. */
  readonly code: number | undefined;

  constructor(message: string, code: number | undefined) {
    super(message);
    this.code = code;
  }
}

/** How a request is made. */
export interface PostOptions {
  readonly tls?: Tls | undefined;
  /** Value of the Authorization header. */
  readonly token?: string | undefined;
  readonly timeoutMs: number;
  readonly connections: Connections;
}

/**
 * Sends a request, and waits for the answer.
 * @throws HttpError when it is refused, or the answer makes no sense; the error of connect(2), of TLS, or one
 *   that it took too long.
 */
export async function postJson(
  member: Endpoint,
  path: string,
  body: object,
  { tls, token, timeoutMs, connections }: PostOptions,
): Promise<unknown> {
  const { status, text } = await exchange(member, {
    ...{ method: 'POST', path, body: JSON.stringify(body), tls, timeoutMs, connections },
    ...(token && { headers: { authorization: token } }),
  });
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new HttpError(`HTTP status ${status}, and no JSON: ${text.slice(0, 100)}`, undefined);
  }
  if (!isObject(value)) throw new HttpError(`HTTP status ${status}, and no JSON object`, undefined);
  if (status === 200 && value.error === undefined) return value;
  const { message, error, code } = value;
  const said = [message, error].find((one) => typeof one === 'string' && one !== '');
  throw new HttpError(`${said ?? `HTTP status ${status}`}`, typeof code === 'number' ? code : undefined);
}
