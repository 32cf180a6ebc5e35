/** Requests over HTTP or HTTPS, as clients of etcd and of the Kubernetes API make them. */

import {
  type ClientRequest,
  type IncomingMessage,
  Agent as PlainAgent,
  request as requestPlain,
} from 'node:http';
import { request as requestTls, Agent as TlsAgent } from 'node:https';
import { isIP } from 'node:net';
import { getCACertificates } from 'node:tls';
import { errnoOf } from './file.ts';

/** The largest answer that is accepted, in bytes: several times that of a page of keys. */
export const longestText = 16 * 1024 * 1024;

/**
 * How long an answer that comes bit by bit may be silent before the kernel probes whether the other side is
 * alive.
 */
const keepAliveMs = 10_000;

/** Where a server listens. */
export interface Endpoint {
  readonly isSecure: boolean;
  readonly host: string;
  readonly port: number;
  /** As in "https://192.0.2.1:2379". */
  readonly origin: string;
}

/** Certificates and keys, in PEM. */
export interface Tls {
  /** Authorities of the server's certificate; those that the host trusts by default. */
  readonly ca?: string | undefined;
  readonly cert?: string | undefined;
  readonly key?: string | undefined;
  /** Name in the server's certificate, if it is not the endpoint's host. */
  readonly servername?: string | undefined;
  /** Whether any certificate will do for the server. */
  readonly isInsecure?: boolean | undefined;
}

/** Connections that are kept for the next request, so that there is only one TLS handshake. */
export interface Connections {
  readonly plain: PlainAgent;
  readonly secure: TlsAgent;
}

/**
 * Creates a pool of connections. Unused ones are closed after some time, and do not keep the process alive.
 */
export function keepConnections(): Connections {
  const options = { keepAlive: true, maxFreeSockets: 2, timeout: 30_000 };
  return { plain: new PlainAgent(options), secure: new TlsAgent(options) };
}

/** A request, and how it is made. */
export interface HttpRequest {
  readonly method: string;
  readonly path: string;
  readonly headers?: Readonly<Record<string, string>>;
  /** JSON, unless a header says otherwise. */
  readonly body?: string | undefined;
  readonly tls?: Tls | undefined;
  readonly connections: Connections;
  readonly timeoutMs: number;
}

/** The answer. */
export interface HttpAnswer {
  readonly status: number;
  readonly headers: IncomingMessage['headers'];
  readonly text: string;
}

/**
 * Sends a request, and waits for the whole answer. A connection that the server had closed meanwhile is
 * replaced once, so the request must be one that may be carried out twice.
 * @throws the error of connect(2) or of TLS, see {@link isTlsError}; Error when it takes too long.
 */
export async function exchange(endpoint: Endpoint, request: HttpRequest): Promise<HttpAnswer> {
  const end = performance.now() + request.timeoutMs;
  const first = send(endpoint, request, request.connections);
  try {
    return await answerOf(first, request.body, request.timeoutMs);
  } catch (error) {
    const isStale = first.reusedSocket && ['ECONNRESET', 'EPIPE'].includes(errnoOf(error) ?? '');
    if (!isStale) throw error;
  }
  const second = send(endpoint, request, { plain: false, secure: false });
  return await answerOf(second, request.body, Math.max(1, end - performance.now()));
}

/**
 * Sends a request that is answered bit by bit, over a connection of its own.
 * @param request.timeoutMs until the answer begins. @param signal ends it.
 * @returns the answer, which the caller must read. A connection that has died is noticed within half a
 *   minute.
 * @throws as {@link exchange}.
 */
export function openAnswer(
  endpoint: Endpoint,
  request: Omit<HttpRequest, 'connections'>,
  signal: AbortSignal,
): Promise<IncomingMessage> {
  const { body, timeoutMs } = request;
  const sent = send(endpoint, request, { plain: false, secure: false }, signal);
  sent.setSocketKeepAlive(true, keepAliveMs);
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => sent.destroy(tooLate(timeoutMs)), timeoutMs);
    sent.on('error', (error) => {
      clearTimeout(late);
      reject(error);
    });
    refuseUpgrade(sent);
    sent.on('response', (response) => {
      clearTimeout(late);
      resolve(response);
    });
    sent.end(body);
  });
}

/**
 * Without this, a request that is answered with a switch to another protocol, status 101, would never end.
 */
function refuseUpgrade(request: ClientRequest): void {
  request.on('upgrade', (_, socket) => {
    socket.destroy();
    request.emit('error', new Error('the answer is the beginning of another protocol'));
  });
}

function tooLate(timeoutMs: number): Error {
  return new Error(`no answer within ${Math.round(timeoutMs)} ms`);
}

function send(
  { isSecure, host, port }: Endpoint,
  request: Omit<HttpRequest, 'connections'>,
  { plain, secure }: { plain: PlainAgent | false; secure: TlsAgent | false },
  signal?: AbortSignal,
): ClientRequest {
  const { method, path, headers = {}, body, tls = {} } = request;
  const options = {
    ...{ host, port, path, method, signal },
    headers: {
      ...(body !== undefined && {
        'content-type': 'application/json',
        'content-length': `${Buffer.byteLength(body)}`,
      }),
      ...headers,
    },
  };
  if (!isSecure) return requestPlain({ ...options, agent: plain });
  const { cert, key, isInsecure = false } = tls;
  const ca = tls.ca ?? (isInsecure ? undefined : hostAuthorities());
  const servername = tls.servername ?? (isIP(host) === 0 ? host : undefined);
  return requestTls({
    ...{ ...options, ca, cert, key, agent: secure, rejectUnauthorized: !isInsecure },
    ...(servername && { servername }),
  });
}

/**
 * The authorities that the host trusts, as other programs use them; those of Node.js if there are none.
 * Reading them takes a fifth of a second, once in each process.
 */
function hostAuthorities(): string[] | undefined {
  const all = new Set(getCACertificates('system'));
  return all.size > 0 ? [...all] : undefined;
}

function answerOf(request: ClientRequest, body: string | undefined, timeoutMs: number): Promise<HttpAnswer> {
  return new Promise((resolve, reject) => {
    const late = setTimeout(() => request.destroy(tooLate(timeoutMs)), timeoutMs);
    const fail = (error: Error) => {
      clearTimeout(late);
      reject(error);
    };
    request.on('error', fail);
    refuseUpgrade(request);
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
        const { statusCode: status = 0, headers } = response;
        resolve({ status, headers, text: Buffer.concat(chunks).toString('utf8') });
      });
    });
    request.end(body);
  });
}

/**
 * True when a connection failed because one side did not accept the other's certificate, or does not speak
 * TLS. Source: "X509 certificate error codes" of node:tls, and OpenSSL's errors, whose names begin with ERR_.
 */
export function isTlsError(error: unknown): boolean {
  const code = `${(error as { code?: unknown }).code ?? ''}`;
  return /^(?:EPROTO|ERR_(?:TLS|SSL|OSSL)_.*|(?:CERT|CRL|UNABLE|SELF_SIGNED|DEPTH_ZERO|INVALID|HOSTNAME|PATH_LENGTH|OCSP)_.*)$/.test(
    code,
  );
}
