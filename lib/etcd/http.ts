/** JSON over HTTP or HTTPS, as etcd's gateway speaks it. */

import { type ClientRequest, type IncomingMessage, request as requestPlain } from 'node:http';
import { request as requestTls } from 'node:https';
import { isIP } from 'node:net';
import { isObject } from '../object.ts';

/** The largest answer that is taken, in bytes: several times that of a page of keys. */
const longestText = 16 * 1024 * 1024;

/** How long a stream may be silent before the kernel asks whether the other side is still there. */
const keepAliveMs = 10_000;

/** Where a member listens. */
export interface Endpoint {
  readonly isSecure: boolean;
  readonly host: string;
  readonly port: number;
  /** As in "https://192.0.2.1:2379". */
  readonly origin: string;
}

/** Certificates and keys, in PEM. */
export interface Tls {
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
}

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
  /** Ends the request, and what it is answered. */
  readonly signal?: AbortSignal;
}

/**
 * Sends a request, and waits for the answer.
 * @throws HttpError when it is refused, or the answer makes no sense; the error of connect(2), of TLS, or one
 *   that it took too long.
 */
export async function postJson(
  endpoint: Endpoint,
  path: string,
  body: object,
  options: PostOptions,
): Promise<unknown> {
  const text = JSON.stringify(body);
  const request = send(endpoint, path, text, options);
  const { status, answer } = await exchange(request, text, options.timeoutMs);
  const value = parseRecord(status, answer);
  if (status === 200 && value.error === undefined) return value;
  throw refusal(status, value);
}

/**
 * Sends a request that is answered by a stream of messages.
 * @param options.timeoutMs until the stream begins. @param options.signal ends it.
 * @returns the messages as they come, until the other side ends them; a connection that has died is noticed
 *   within half a minute.
 * @throws as {@link postJson}, also while messages come.
 */
export async function openStream(
  endpoint: Endpoint,
  path: string,
  body: object,
  options: PostOptions & { readonly signal: AbortSignal },
): Promise<AsyncIterable<unknown>> {
  const text = JSON.stringify(body);
  const request = send(endpoint, path, text, options);
  request.setSocketKeepAlive(true, keepAliveMs);
  const response = await begin(request, text, options.timeoutMs);
  if (response.statusCode === 200) return messagesOf(response);
  response.setEncoding('utf8');
  let answer = '';
  for await (const chunk of response) answer += chunk;
  throw refusal(response.statusCode ?? 0, parseRecord(response.statusCode ?? 0, answer));
}

/** One message a line, each within "result", or "error" where something went wrong. */
async function* messagesOf(response: IncomingMessage): AsyncGenerator<unknown> {
  response.setEncoding('utf8');
  let text = '';
  for await (const chunk of response) {
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

function send(
  { isSecure, host, port }: Endpoint,
  path: string,
  text: string,
  { tls = {}, token, signal }: PostOptions,
): ClientRequest {
  const options = {
    ...{ host, port, path, method: 'POST', agent: false, signal },
    headers: {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(text),
      ...(token && { authorization: token }),
      // A member that has lost its leader is to say so rather than to keep silent.
      ...(signal && { 'grpc-metadata-hasleader': 'true' }),
    },
  };
  return isSecure
    ? requestTls({ ...options, ...tls, ...(isIP(host) === 0 && { servername: host }) })
    : requestPlain(options);
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

/** Sends a body, and waits until the answer begins. */
function begin(request: ClientRequest, body: string, timeoutMs: number): Promise<IncomingMessage> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => request.destroy(tooLate(timeoutMs)), timeoutMs);
    request.on('error', (error) => {
      clearTimeout(late);
      reject(error);
    });
    request.on('response', (response) => {
      clearTimeout(late);
      resolve(response);
    });
    request.end(body);
  });
}

function tooLate(timeoutMs: number): Error {
  return new Error(`no answer within ${Math.round(timeoutMs)} ms`);
}

function exchange(
  request: ClientRequest,
  body: string,
  timeoutMs: number,
): Promise<{ status: number; answer: string }> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => request.destroy(tooLate(timeoutMs)), timeoutMs);
    const fail = (error: Error) => {
      clearTimeout(late);
      reject(error);
    };
    request.on('error', fail);
    request.on('response', (response) => {
      const chunks: Buffer[] = [];
      let size = 0;
      response.on('error', fail);
      response.on('data', (chunk: Buffer) => {
        size += chunk.length;
        if (size > longestText) request.destroy(new Error(`more than ${longestText} bytes of answer`));
        chunks.push(chunk);
      });
      response.on('end', () => {
        clearTimeout(late);
        resolve({ status: response.statusCode ?? 0, answer: Buffer.concat(chunks).toString('utf8') });
      });
    });
    request.end(body);
  });
}
