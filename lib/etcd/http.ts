/** JSON over HTTP or HTTPS, as etcd's gateway speaks it. */

import { type ClientRequest, Agent as PlainAgent, request as requestPlain } from 'node:http';
import { request as requestTls, Agent as TlsAgent } from 'node:https';
import { isIP } from 'node:net';
import { errnoOf } from '../file.ts';
import { isObject } from '../object.ts';

/** The largest answer that is taken, in bytes: several times that of a page of keys. */
const longestText = 16 * 1024 * 1024;

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

/** Connections that are kept for the next request, so that TLS is agreed upon once. */
export interface Connections {
  readonly plain: PlainAgent;
  readonly secure: TlsAgent;
}

/** Makes a place for connections. Those that nobody uses end after some time, and keep no process alive. */
export function keepConnections(): Connections {
  const options = { keepAlive: true, maxFreeSockets: 2, timeout: 30_000 };
  return { plain: new PlainAgent(options), secure: new TlsAgent(options) };
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
  readonly connections: Connections;
}

/**
 * Sends a request, and waits for the answer.
 * @throws HttpError when it is refused, or the answer makes no sense; the error of connect(2), of TLS, or one
 *   that it took too long.
 */
export async function postJson(
  { isSecure, host, port }: Endpoint,
  path: string,
  body: object,
  { tls = {}, token, timeoutMs, connections }: PostOptions,
): Promise<unknown> {
  const text = JSON.stringify(body);
  const options = {
    ...{ host, port, path, method: 'POST' },
    headers: {
      'content-type': 'application/json',
      'content-length': Buffer.byteLength(text),
      ...(token && { authorization: token }),
    },
  };
  const send = ({ plain, secure }: { plain: PlainAgent | false; secure: TlsAgent | false }) =>
    isSecure
      ? requestTls({
          ...{ ...options, ...tls, agent: secure },
          ...(isIP(host) === 0 && { servername: host }),
        })
      : requestPlain({ ...options, agent: plain });
  const first = send(connections);
  const { status, answer } = await exchange(first, text, timeoutMs).catch((error: Error) => {
    // A connection that was kept may have been closed at the other end.
    const isClosed = first.reusedSocket && ['ECONNRESET', 'EPIPE'].includes(errnoOf(error) ?? '');
    if (!isClosed) throw error;
    return exchange(send({ plain: false, secure: false }), text, timeoutMs);
  });
  let value: unknown;
  try {
    value = JSON.parse(answer);
  } catch {
    throw new HttpError(`HTTP status ${status}, and no JSON: ${answer.slice(0, 100)}`, undefined);
  }
  if (!isObject(value)) throw new HttpError(`HTTP status ${status}, and no JSON object`, undefined);
  if (status === 200 && value.error === undefined) return value;
  const { message, error, code } = value;
  const said = [message, error].find((one) => typeof one === 'string' && one !== '');
  throw new HttpError(`${said ?? `HTTP status ${status}`}`, typeof code === 'number' ? code : undefined);
}

function exchange(
  request: ClientRequest,
  body: string,
  timeoutMs: number,
): Promise<{ status: number; answer: string }> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(
      () => request.destroy(new Error(`no answer within ${Math.round(timeoutMs)} ms`)),
      timeoutMs,
    );
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
