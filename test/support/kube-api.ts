/**
 * A stand-in for a kube-apiserver, on a host of a test: HTTPS with an authority of its own, client certificates
 * and bearer tokens, and objects as kube-objects.ts keeps them. Tests seed and look at the objects directly,
 * and make the server slow, refuse, or answer anything.
 */

import { chmodSync, readFileSync, writeFileSync } from 'node:fs';
import type { IncomingMessage, ServerResponse } from 'node:http';
import { createServer, type Server } from 'node:https';
import type { Socket } from 'node:net';
import type { TLSSocket } from 'node:tls';
import { dump } from 'js-yaml';
import type { Host, Teardown } from './host.ts';
import { kinds, verbOf } from './kube-kinds.ts';
import { type Kind, type KubeObject, Objects, Refusal } from './kube-objects.ts';

const pki = '/run/kube-pki';
const socket = '/run/kube-api.sock';

/** A request, as a test sees it. */
export interface ApiRequest {
  readonly method: string;
  /** With its query. */
  readonly path: string;
  readonly user: string;
  /** As in "ippools" or "pods/status"; "" for a path that names none. */
  readonly resource: string;
  readonly body: unknown;
}

/** An answer in place of the API's own. */
export interface Reply {
  readonly status: number;
  /** A string is sent as it is, anything else as JSON. */
  readonly body: unknown;
  readonly headers?: Readonly<Record<string, string>>;
}

/** How a client authenticates, and what else its kubeconfig contains. */
export interface Access {
  readonly token?: string;
  /** Whether the client uses its certificate. */
  readonly hasCertificate?: boolean;
  /** Further keys of the user, the cluster, and the context. */
  readonly user?: object;
  readonly cluster?: object;
  readonly context?: object;
}

/** The server. */
export class KubeApi {
  readonly host: Host;
  readonly server = 'https://127.0.0.1:6443';
  /** Users by their tokens. */
  readonly tokens = new Map([['node-token', 'system:node']]);
  /** The requests since the test began. */
  readonly requests: ApiRequest[] = [];
  /** How many requests failed with status 409. */
  conflicts = 0;
  /** How many connections were made. */
  connections = 0;
  /** Called for every request; what it returns is answered. "hang" never answers, "close" disconnects. */
  onRequest: (request: ApiRequest) => Reply | 'hang' | 'close' | undefined | Promise<Reply | undefined> =
    () => undefined;
  /** Whether a user may do something, by a verb of RBAC; anonymous users never may. */
  isAllowed: (user: string, verb: string, resource: string) => boolean = () => true;
  private readonly objects = new Map<string, Objects>();
  private version = 1000;
  private listener: Server | undefined;
  private readonly sockets = new Set<Socket>();

  private constructor(host: Host) {
    this.host = host;
    for (const kind of kinds) this.addKind(kind);
  }

  /** Starts the server; it runs until the test ends. */
  static async start(t: Teardown, host: Host): Promise<KubeApi> {
    const api = new KubeApi(host);
    await host.run(['sh', '-ec', certificates]);
    await api.up();
    t.teardown(() => api.down());
    const listen = 'TCP-LISTEN:6443,bind=127.0.0.1,reuseaddr,fork,backlog=128';
    await host.start(t, ['sh', '-c', `exec socat -d -d ${listen} UNIX-CONNECT:${socket} 2>&1`]);
    return api;
  }

  /** Listens again. */
  async up(): Promise<void> {
    const file = (name: string) => readFileSync(this.host.file(`${pki}/${name}`));
    this.listener = createServer(
      {
        ...{ key: file('server.key'), cert: file('server.crt'), ca: file('ca.crt') },
        ...{ requestCert: true, rejectUnauthorized: false },
        // So long that a client which keeps its connection shows up as one connection.
        keepAliveTimeout: 60_000,
      },
      (request, response) => void this.serve(request, response),
    );
    this.listener.on('connection', (one) => {
      this.connections++;
      this.sockets.add(one);
      one.on('close', () => this.sockets.delete(one));
    });
    await this.host.run(['rm', '-f', socket]);
    await new Promise<void>((resolve) => this.listener!.listen(this.host.file(socket), resolve));
    chmodSync(this.host.file(socket), 0o600);
  }

  /** Ends all connections, and takes no more. */
  async down(): Promise<void> {
    const { listener } = this;
    if (!listener) return;
    this.listener = undefined;
    const closed = new Promise((resolve) => listener.close(resolve));
    for (const one of this.sockets) one.destroy();
    await closed;
  }

  /** Makes the API know a kind. */
  addKind(kind: Kind): void {
    this.objects.set(kind.plural, new Objects(kind, () => `${++this.version}`));
  }

  /** Takes a kind away, as if its definition were not installed. */
  removeKind(plural: string): void {
    this.objects.delete(plural);
  }

  /** The objects of a kind, to be read and changed without the server. */
  of(plural: string): Objects {
    return this.objects.get(plural)!;
  }

  /** Creates an object. */
  seed(plural: string, object: KubeObject): KubeObject {
    const { isClusterWide } = this.of(plural).kind;
    return this.of(plural).create(
      isClusterWide ? undefined : (object.metadata.namespace ?? 'default'),
      object,
    );
  }

  /** Writes a kubeconfig on the host. @returns its path. */
  kubeconfig(name = 'kubeconfig', { token, hasCertificate, user, cluster, context }: Access = {}): string {
    const path = `${pki}/${name}`;
    const own = hasCertificate
      ? { 'client-certificate': 'client.crt', 'client-key': 'client.key' }
      : { token: token ?? 'node-token' };
    const config = {
      ...{ apiVersion: 'v1', kind: 'Config', 'current-context': 'own', preferences: {} },
      clusters: [
        { name: 'one', cluster: { server: this.server, 'certificate-authority': 'ca.crt', ...cluster } },
      ],
      users: [{ name: 'node', user: user ?? own }],
      contexts: [{ name: 'own', context: { cluster: 'one', user: 'node', ...context } }],
    };
    writeFileSync(this.host.file(path), dump(config));
    return path;
  }

  private async serve(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const chunks: Buffer[] = [];
    for await (const chunk of request) chunks.push(chunk as Buffer);
    const text = Buffer.concat(chunks).toString();
    const answer = ({ status, body, headers = {} }: Reply) => {
      const isText = typeof body === 'string';
      response.writeHead(status, { 'content-type': isText ? 'text/plain' : 'application/json', ...headers });
      response.end(isText ? body : JSON.stringify(body));
    };
    try {
      const body: unknown = text ? JSON.parse(text) : undefined;
      const { method = '', url: path = '' } = request;
      const place = placeOf(path);
      const known = { method, path, body, resource: place?.resource ?? '', user: this.userOf(request) };
      this.requests.push(known);
      const other = await this.onRequest(known);
      if (other === 'hang') return;
      if (other === 'close') return void request.socket.destroy();
      if (other) return answer(other);
      if (known.user === '' && request.headers.authorization)
        throw new Refusal(401, 'Unauthorized', 'Unauthorized');
      answer(this.answerTo(known, place, `${request.headers['content-type']}`));
    } catch (error) {
      const { status = 500, reason = 'InternalError', message, of } = error as Refusal;
      if (status === 409) this.conflicts++;
      answer({
        status,
        body: {
          kind: 'Status',
          apiVersion: 'v1',
          metadata: {},
          status: 'Failure',
          message,
          reason,
          ...(of !== undefined && { details: { name: of } }),
          code: status,
        },
      });
    }
  }

  private answerTo(
    { method, path, user, resource, body }: ApiRequest,
    place: Place | undefined,
    type: string,
  ): Reply {
    if (path === '/version') return { status: 200, body: { major: '1', minor: '32' } };
    const objects = place && this.objects.get(place.plural);
    if (!place || objects?.kind.apiVersion !== place.apiVersion)
      return { status: 404, body: '404 page not found\n' };
    const { namespace, name, isStatus } = place;
    const verb = verbOf(method, name);
    if (user === '' || !this.isAllowed(user, verb, resource))
      throw new Refusal(
        ...([403, 'Forbidden'] as const),
        `${objects.resource} is forbidden: User "${user || 'system:anonymous'}" cannot ${verb} resource "${resource}"`,
      );
    const ok = (value: unknown): Reply => ({ status: 200, body: value });
    if (name === undefined) {
      if (method === 'POST') {
        const object = body as KubeObject;
        const { kind, apiVersion } = objects.kind;
        if (object.kind !== kind || object.apiVersion !== apiVersion)
          throw new Refusal(
            400,
            'BadRequest',
            `${object.kind} in version "${object.apiVersion}" cannot be handled as a ${kind}`,
          );
        return { status: 201, body: objects.create(namespace, object) };
      }
      if (method === 'GET')
        return ok(this.listOf(objects, namespace, new URL(path, this.server).searchParams));
    } else {
      const within = namespace ?? '';
      if (method === 'GET') return ok(objects.get(within, name));
      if (method === 'PUT') return ok(objects.update(within, name, body as KubeObject, isStatus));
      if (method === 'PATCH') return ok(objects.patch(within, name, body, type, isStatus));
      if (method === 'DELETE') {
        objects.remove(within, name, (body as { preconditions?: object } | undefined)?.preconditions);
        return ok({ kind: 'Status', apiVersion: 'v1', metadata: {}, status: 'Success' });
      }
    }
    throw new Refusal(
      405,
      'MethodNotAllowed',
      'the server does not allow this method on the requested resource',
    );
  }

  private listOf(objects: Objects, namespace: string | undefined, query: URLSearchParams): object {
    const of = (key: string) => query.get(key) ?? '';
    const all = objects.list(namespace, of('labelSelector'), of('fieldSelector'));
    const from = Number(of('continue') || 0);
    const to = of('limit') ? from + Number(of('limit')) : all.length;
    const { kind, apiVersion } = objects.kind;
    const metadata = { resourceVersion: `${this.version}`, ...(to < all.length && { continue: `${to}` }) };
    return { kind: `${kind}List`, apiVersion, metadata, items: all.slice(from, to) };
  }

  /** The user of a request, "" for an anonymous one. */
  private userOf({ headers, socket }: IncomingMessage): string {
    const [, token] = /^Bearer (.+)$/.exec(headers.authorization ?? '') ?? [];
    if (token !== undefined) return this.tokens.get(token) ?? '';
    const { authorized, getPeerCertificate } = socket as TLSSocket;
    return authorized ? `${getPeerCertificate.call(socket).subject.CN}` : '';
  }
}

/** What a path leads to. */
interface Place {
  readonly apiVersion: string;
  readonly namespace: string | undefined;
  readonly plural: string;
  readonly name: string | undefined;
  readonly isStatus: boolean;
  readonly resource: string;
}

function placeOf(path: string): Place | undefined {
  const parts = path.split('?')[0]!.split('/').slice(1).map(decodeURIComponent);
  const apiVersion = parts[0] === 'api' ? parts[1]! : `${parts[1]}/${parts[2]}`;
  const rest = parts.slice(parts[0] === 'api' ? 2 : 3);
  const isWithin = rest[0] === 'namespaces' && rest.length > 2;
  const [plural, name, subresource] = isWithin ? rest.slice(2) : rest;
  if (!plural || (subresource !== undefined && subresource !== 'status')) return undefined;
  return {
    ...{ apiVersion, plural, name, isStatus: subresource === 'status' },
    namespace: isWithin ? rest[1] : undefined,
    resource: subresource ? `${plural}/${subresource}` : plural,
  };
}

/** An authority, the server's certificate and a client's; and another authority. */
const certificates = `mkdir -p ${pki}; cd ${pki}
  key='-newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes'
  for ca in ca other; do openssl req -x509 $key -days 2 -subj /CN=$ca -keyout $ca.key -out $ca.crt; done
  sign() {
    openssl req $key -subj "$2" -keyout $1.key -out $1.csr
    echo "$3" > $1.san
    openssl x509 -req -in $1.csr -CA $4.crt -CAkey $4.key -CAcreateserial -days 2 -extfile $1.san -out $1.crt
  }
  sign server /CN=kube-apiserver 'subjectAltName=IP:127.0.0.1,DNS:kubernetes' ca
  sign client /O=system:nodes/CN=system:node 'extendedKeyUsage=clientAuth' ca
  sign stranger /O=system:nodes/CN=system:node 'extendedKeyUsage=clientAuth' other`;
