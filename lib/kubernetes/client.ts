/**
 * A client of the Kubernetes API for the few requests of one call, which takes less to load than a library
 * for the whole API. Source: "API Concepts" of Kubernetes, and type Status of apimachinery's meta/v1.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import { type Connections, exchange, type HttpAnswer, isTlsError, keepConnections } from '../http.ts';
import { isObject } from '../object.ts';
import { type Failure, failureOf, KubernetesError } from './error.ts';
import type { Cluster } from './kubeconfig.ts';

/** How long a request may take in milliseconds unless a caller says otherwise. */
const usualTimeout = 10_000;
/** For how many clusters, and users of them, a process keeps connections. */
const mostClusters = 16;
/** How long a server that is too busy is left alone unless it says how long, in milliseconds. */
const usualPause = 1000;
const shortestPause = 50;

/** What all objects have. Source: type ObjectMeta of apimachinery's meta/v1. */
export interface ObjectMeta {
  readonly name: string;
  readonly namespace?: string;
  readonly uid?: string;
  readonly resourceVersion?: string;
  readonly annotations?: Readonly<Record<string, string>>;
  readonly labels?: Readonly<Record<string, string>>;
}

/** Which objects of a list are wanted. */
export interface ListOptions {
  readonly labelSelector?: string;
  readonly fieldSelector?: string;
  /** How many at most; the "continue" of the answer asks for the next ones. */
  readonly limit?: number;
  readonly continue?: string;
}

/** Objects, and where to go on if these are not all. */
export interface ObjectList<T> {
  readonly items: readonly T[];
  /** Undefined for the last ones. */
  readonly continue: string | undefined;
}

/** What must hold for an object to be removed. */
export interface Preconditions {
  readonly uid?: string | undefined;
  readonly resourceVersion?: string | undefined;
}

export interface ClientOptions {
  /** How long each request may take, including waits for a busy server, in milliseconds; 10 s by default. */
  readonly timeoutMs?: number | undefined;
}

const patchTypes = {
  merge: 'application/merge-patch+json',
  json: 'application/json-patch+json',
  strategic: 'application/strategic-merge-patch+json',
};

const connectionsByCluster = new Map<string, Connections>();

/**
 * A client of a cluster, which must not be disposed of: in a process that serves many calls, connections are
 * kept from one call to the next, however long each of them may wait.
 */
export function kubernetesClient(cluster: Cluster, options: ClientOptions = {}): KubernetesClient {
  const key = JSON.stringify(cluster);
  let connections = connectionsByCluster.get(key);
  if (!connections) {
    // Tokens and certificates are renewed: connections with old ones are not needed again.
    if (connectionsByCluster.size >= mostClusters) connectionsByCluster.clear();
    connections = keepConnections();
    connectionsByCluster.set(key, connections);
  }
  return new KubernetesClient(cluster, options, connections);
}

/**
 * A client of one cluster. Connections are kept for further requests until it is disposed of. Nobody knows
 * whether a request that was not answered was carried out: it must be one that may be sent twice.
 */
export class KubernetesClient implements Disposable {
  private readonly cluster: Cluster;
  private readonly timeoutMs: number;
  private readonly connections: Connections;

  /** @param connections to use; new ones by default. */
  constructor(
    cluster: Cluster,
    { timeoutMs = usualTimeout }: ClientOptions = {},
    connections = keepConnections(),
  ) {
    this.cluster = cluster;
    this.timeoutMs = timeoutMs;
    this.connections = connections;
  }

  [Symbol.dispose](): void {
    this.connections.plain.destroy();
    this.connections.secure.destroy();
  }

  /**
   * Reads what is at a path, which must be a JSON object.
   * @param path as in "/api/v1/namespaces/default/pods/a"; names in it must be encoded, see {@link pathOf}.
   * @throws KubernetesError, like every method.
   */
  async get<T>(path: string): Promise<T> {
    return (await this.ask('GET', path)) as T;
  }

  /** Reads an object of the API, which has a name. @param path as for {@link get}. */
  async read<T extends { readonly metadata: ObjectMeta }>(path: string): Promise<T> {
    return this.objectIn(await this.ask('GET', path)) as T;
  }

  /** Reads objects. @param path of their kind, as in "/api/v1/namespaces/default/pods". */
  async list<T>(path: string, options: ListOptions = {}): Promise<ObjectList<T>> {
    const query = new URLSearchParams();
    for (const [key, value] of Object.entries(options)) if (value !== undefined) query.set(key, `${value}`);
    const answer = await this.ask('GET', query.size > 0 ? `${path}?${query}` : path);
    const { items, metadata } = answer;
    if (!Array.isArray(items)) throw this.garbled('it is not a list');
    for (const one of items) this.objectIn(one);
    const next = isObject(metadata) ? metadata.continue : undefined;
    if (typeof next !== 'string' || next === '') return { items: items as T[], continue: undefined };
    // There would be no end of it.
    if (next === options.continue) throw this.garbled('a part of a list is followed by itself');
    return { items: items as T[], continue: next };
  }

  /** Creates an object. @param path of its kind. @throws KubernetesError, a "conflict" when it exists. */
  async create<T>(path: string, body: object): Promise<T> {
    return this.objectIn(await this.ask('POST', path, JSON.stringify(body))) as T;
  }

  /**
   * Replaces an object.
   * @param body the whole object, with the resourceVersion that it was read with.
   * @throws KubernetesError, a "conflict" when it was changed meanwhile.
   */
  async update<T>(path: string, body: object): Promise<T> {
    return this.objectIn(await this.ask('PUT', path, JSON.stringify(body))) as T;
  }

  /** Changes a part of an object. @param type of the body; custom resources take no "strategic" one. */
  async patch<T>(path: string, body: object, type: keyof typeof patchTypes): Promise<T> {
    return this.objectIn(await this.ask('PATCH', path, JSON.stringify(body), patchTypes[type])) as T;
  }

  /** Removes an object. @throws KubernetesError, a "conflict" when the preconditions do not hold. */
  async remove(path: string, preconditions?: Preconditions): Promise<void> {
    const options = { apiVersion: 'v1', kind: 'DeleteOptions', preconditions };
    await this.ask('DELETE', path, preconditions && JSON.stringify(options));
  }

  private async ask(
    method: string,
    path: string,
    body?: string,
    type = 'application/json',
  ): Promise<Record<string, unknown>> {
    const end = performance.now() + this.timeoutMs;
    for (;;) {
      const answer = await this.exchange(method, path, body, type, Math.max(1, end - performance.now()));
      const value = this.valueOf(answer);
      if (answer.status >= 200 && answer.status < 300) return value;
      const pause = pauseOf(answer);
      if (performance.now() + pause >= end) throw this.refusal(`${method} ${path}`, answer.status, value);
      await sleep(pause);
    }
  }

  private async exchange(
    method: string,
    path: string,
    body: string | undefined,
    type: string,
    timeoutMs: number,
  ): Promise<HttpAnswer> {
    const { endpoint, basePath, tls, authorization, file } = this.cluster;
    const { connections } = this;
    try {
      return await exchange(endpoint, {
        method,
        path: `${basePath}${path}`,
        body,
        tls,
        connections,
        timeoutMs,
        headers: {
          accept: 'application/json',
          'user-agent': 'cni-plugins',
          ...(body !== undefined && { 'content-type': type }),
          ...(authorization !== undefined && { authorization }),
        },
      });
    } catch (error) {
      const details = (error as Error).message;
      if (isTlsError(error))
        throw new KubernetesError(
          'tls',
          `The certificates of the Kubernetes API at ${endpoint.origin} and of kubeconfig "${file}" do not match. Correct "certificate-authority", "server" and the client's certificate in it, and see that none has expired`,
          { details },
        );
      throw new KubernetesError(
        'unreachable',
        `The Kubernetes API at ${endpoint.origin} does not answer. See that it is up and that this node reaches it, or correct "server" in kubeconfig "${file}"`,
        { details },
      );
    }
  }

  private valueOf({ status, text }: HttpAnswer): Record<string, unknown> {
    try {
      const value: unknown = JSON.parse(text);
      if (isObject(value)) return value;
    } catch {
      // Proxies in front of the API refuse with pages of their own.
      if (status >= 400) return {};
    }
    throw this.garbled(`HTTP status ${status}, and no JSON object: ${text.slice(0, 100)}`);
  }

  /** @throws KubernetesError for what is not an object of the API. */
  private objectIn(answer: unknown): unknown {
    const metadata = isObject(answer) ? answer.metadata : undefined;
    if (isObject(metadata) && typeof metadata.name === 'string' && metadata.name !== '') return answer;
    throw this.garbled('it is not an object with a name');
  }

  private garbled(details: string): KubernetesError {
    const { endpoint, file } = this.cluster;
    return new KubernetesError(
      'garbled',
      `What answers at ${endpoint.origin} does not speak as the Kubernetes API does. Correct "server" in kubeconfig "${file}", or see what listens there`,
      { details },
    );
  }

  /** What an HTTP status means to an operator. */
  private refusal(what: string, status: number, value: Record<string, unknown>): KubernetesError {
    const { message, reason } = value;
    const said = typeof message === 'string' && message !== '' ? message : `HTTP status ${status}`;
    const failure = failureOf(status, value);
    return new KubernetesError(failure, `${this.remedyOf(failure)}: ${said}`, {
      status,
      reason: typeof reason === 'string' ? reason : '',
      details: what,
    });
  }

  private remedyOf(failure: Failure): string {
    const { endpoint, file } = this.cluster;
    switch (failure) {
      case 'unauthorized':
        return `The Kubernetes API at ${endpoint.origin} does not know the user of kubeconfig "${file}". Renew its token or certificate`;
      case 'forbidden':
        return `The Kubernetes API forbids it to the user of kubeconfig "${file}". Allow it with a ClusterRole and a ClusterRoleBinding`;
      case 'not-found':
        return 'The Kubernetes API has no such object. Create it';
      case 'garbled':
        return `What answers at ${endpoint.origin} does not serve the kind of object. Install the CustomResourceDefinition of its kind, correct "server" in kubeconfig "${file}", or see what listens there`;
      case 'conflict':
        return 'The object of the Kubernetes API exists already or was changed meanwhile. Try again';
      case 'invalid':
        return 'The Kubernetes API takes no such object. Install the CustomResourceDefinition of a version that does';
      case 'busy':
        return `The Kubernetes API at ${endpoint.origin} cannot answer at present. Try again, or see what its log says`;
      default:
        return 'The Kubernetes API refuses the request. Correct what it names';
    }
  }
}

/** A path of the API. @param parts names, such as those of namespaces and objects, which get encoded. */
export function pathOf(...parts: readonly string[]): string {
  return parts.map((part) => `/${encodeURIComponent(part)}`).join('');
}

/** How long to wait before asking a server again, in milliseconds; Infinity if that is of no use. */
function pauseOf({ status, headers }: HttpAnswer): number {
  const seconds = Number(headers['retry-after'] ?? Number.NaN);
  if (status === 429 || (status >= 500 && seconds >= 0))
    return seconds >= 0 ? Math.max(shortestPause, seconds * 1000) : usualPause;
  return Infinity;
}
