/** JSON over HTTP or HTTPS, as etcd's gateway speaks it. */

import type { IncomingMessage } from 'node:http';
import { type Connections, type Endpoint, exchange, longestText, openAnswer, type Tls } from '../http.ts';
import { isObject } from '../object.ts';

/** The largest refusal that is read in place of a stream, in bytes. */
const longestRefusal = 64 * 1024;

/** A request was refused, or answered with something that makes no sense. */
export class HttpError extends Error {
  override readonly name = 'HttpError';
  /** Status code of gRPC; undefined when what answered is not etcd. */
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
 * @throws HttpError when it is refused, or the answer makes no sense; the error of connect(2) or of TLS, or
 *   one that says that it took too long.
 */
export async function postJson(
  member: Endpoint,
  path: string,
  body: object,
  { tls, token, timeoutMs, connections }: PostOptions,
): Promise<unknown> {
  const { status, text } = await exchange(member, {
    method: 'POST',
    path,
    body: JSON.stringify(body),
    tls,
    timeoutMs,
    connections,
    ...(token && { headers: { authorization: token } }),
  });
  const value = parseRecord(status, text);
  if (status === 200 && value.error === undefined) return value;
  throw refusal(status, value);
}

/**
 * Sends a request that is answered by a stream of messages.
 * @param options.timeoutMs until the stream begins, or a refusal has come. @param signal ends it.
 * @returns the messages as they come, until the other side ends them; a connection that has died is noticed
 *   within half a minute.
 * @throws as {@link postJson}, also while messages come.
 */
export async function openStream(
  member: Endpoint,
  path: string,
  body: object,
  { tls, token, timeoutMs }: PostOptions,
  signal: AbortSignal,
): Promise<AsyncIterable<unknown>> {
  // Makes a member that has lost its leader say so rather than keep silent.
  const headers = { 'grpc-metadata-hasleader': 'true', ...(token && { authorization: token }) };
  const request = { method: 'POST', path, body: JSON.stringify(body), tls, timeoutMs, headers };
  const end = performance.now() + timeoutMs;
  const response = await openAnswer(member, request, signal);
  const { statusCode: status = 0 } = response;
  response.setEncoding('utf8');
  if (status === 200) return messagesOf(response, member);
  const answer = await refusalIn(response, status, Math.max(1, end - performance.now()));
  throw refusal(status, parseRecord(status, answer));
}

/** The whole text of a refusal. @throws HttpError when it does not end in time, or is too long. */
async function refusalIn(response: IncomingMessage, status: number, timeoutMs: number): Promise<string> {
  const endless = new HttpError(`HTTP status ${status}, and no end of the answer in time`, undefined);
  const late = setTimeout(() => response.destroy(endless), timeoutMs);
  try {
    let text = '';
    for await (const chunk of response) {
      text += chunk;
      if (text.length > longestRefusal)
        throw new HttpError(`HTTP status ${status}, and more than ${longestRefusal} bytes`, undefined);
    }
    return text;
  } finally {
    clearTimeout(late);
  }
}

/** One message per line, each within "result", or "error" when something went wrong. */
async function* messagesOf(response: IncomingMessage, member: Endpoint): AsyncGenerator<unknown> {
  let text = '';
  for await (const chunk of chunksOf(response, member)) {
    const lines = `${text}${chunk}`.split('\n');
    text = lines.pop()!;
    if (text.length > longestText)
      throw new HttpError(`more than ${longestText} bytes of message`, undefined);
    for (const line of lines.filter(Boolean)) {
      const { result, error } = parseRecord(200, line);
      if (error !== undefined) throw refusal(200, isObject(error) ? error : { error });
      yield result;
    }
  }
}

/** The answer as it comes. @throws Error that names the member when the connection breaks. */
async function* chunksOf(response: IncomingMessage, { origin }: Endpoint): AsyncGenerator<string> {
  try {
    for await (const chunk of response) yield chunk;
  } catch (error) {
    // All that Node.js says about it is "aborted".
    throw new Error(`The connection to etcd at ${origin} broke`, { cause: error });
  }
}

function parseRecord(status: number, text: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch {
    throw new HttpError(`HTTP status ${status}, and no JSON: ${text.slice(0, 100)}`, undefined);
  }
  if (!isObject(value)) throw new HttpError(`HTTP status ${status}, and no JSON object`, undefined);
  return value;
}

function refusal(status: number, { message, error, code, grpc_code }: Record<string, unknown>): HttpError {
  const said = [message, error].find((one) => typeof one === 'string' && one !== '');
  const number = [code, grpc_code].find((one) => typeof one === 'number');
  return new HttpError(`${said ?? `HTTP status ${status}`}`, number);
}
