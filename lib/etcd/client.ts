/**
 * A client of etcd v3 through its JSON gateway, which takes less than a gRPC library to load. Source: etcd's
 * API reference, rpc.proto and kv.proto.
 */

import { CniError, ErrorCode } from '../errors.ts';
import { type Endpoint, keepConnections, type Tls } from '../http.ts';
import { HttpError, openStream, type PostOptions, postJson } from './http.ts';

/** How long all members together are tried, in milliseconds; each one gets its share of what is left. */
const longestCallMs = 10_000;

/** How many clusters a process remembers. */
const mostClients = 16;

/** Status codes of gRPC after which another member may succeed, such as UNAVAILABLE. */
const passing = new Set([1, 4, 8, 10, 13, 14, 15]);
const unauthenticated = 16;

/** Where etcd is, and how to log in. */
export interface EtcdSettings {
  readonly endpoints: readonly Endpoint[];
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly tls?: Tls | undefined;
  /** How long all members together are tried for a request, in milliseconds; 10 seconds by default. */
  readonly longestCallMs?: number | undefined;
  /** What the configuration calls these settings, for messages. */
  readonly names?: SettingNames;
}

/** Names of settings. */
interface SettingNames {
  readonly endpoints: string;
  readonly username: string;
  readonly password: string;
}

const defaultNames: SettingNames = {
  endpoints: 'etcd_host',
  username: 'etcd_username',
  password: 'etcd_password',
};

/** Asks one member. */
type Call<T> = (member: Endpoint, options: PostOptions) => Promise<T>;

/** No member answers, or none can, as when there is no leader. */
export class EtcdUnavailableError extends CniError {
  override readonly name = 'EtcdUnavailableError';
}

const clients = new Map<string, EtcdClient>();

/**
 * The client of a cluster. A process that serves many calls has one for all of them, which remembers the
 * token and the member that answered last.
 */
export function etcdClient(settings: EtcdSettings): EtcdClient {
  const key = JSON.stringify(settings);
  const known = clients.get(key);
  if (known) return known;
  if (clients.size >= mostClients) clients.clear();
  const client = new EtcdClient(settings);
  clients.set(key, client);
  return client;
}

/** Asks a cluster. */
export class EtcdClient {
  private readonly settings: EtcdSettings;
  /** Members in the order in which they are tried: the one that answered last comes first. */
  private members: Endpoint[];
  private readonly connections = keepConnections();
  /** The result of authentication, which may still be under way; undefined before it is needed. */
  private token: Promise<string> | undefined;

  constructor(settings: EtcdSettings) {
    this.settings = settings;
    const at = Math.floor(Math.random() * settings.endpoints.length);
    this.members = [...settings.endpoints.slice(at), ...settings.endpoints.slice(0, at)];
  }

  /**
   * Asks the cluster. When a member fails in the middle, nobody knows whether it has carried out the request,
   * so this must be one that may be carried out twice.
   * @param path in the gateway, as in "/v3/kv/txn".
   * @throws EtcdUnavailableError when no member can answer; CniError when the cluster refuses.
   */
  ask(path: string, request: object): Promise<unknown> {
    return this.call((member, options) => postJson(member, path, request, options));
  }

  /**
   * Asks a member for a stream of messages.
   * @param path in the gateway, as in "/v3/watch".
   * @param signal ends it.
   * @returns its messages, until it sends no more.
   * @throws as {@link ask}; while messages come, the error of what ends them.
   */
  follow(path: string, request: object, signal: AbortSignal): Promise<AsyncIterable<unknown>> {
    return this.call((member, options) => openStream(member, path, request, options, signal));
  }

  private async call<T>(call: Call<T>): Promise<T> {
    try {
      return await this.callAsUser(call);
    } catch (error) {
      throw this.explained(error);
    }
  }

  private async callAsUser<T>(call: Call<T>): Promise<T> {
    if (!this.settings.username) return await this.callAnyone(call);
    const token = this.authenticated();
    try {
      return await this.callAnyone(call, await token);
    } catch (error) {
      if (!isStale(error)) throw error;
      this.forget(token);
    }
    // The token had expired, or the member was restarted.
    return await this.callAnyone(call, await this.authenticated());
  }

  /** A token; concurrent calls wait for the same one. */
  private authenticated(): Promise<string> {
    if (this.token) return this.token;
    const token = this.authenticate();
    this.token = token;
    token.catch(() => this.forget(token));
    return token;
  }

  private forget(token: Promise<string>): void {
    if (this.token === token) this.token = undefined;
  }

  private async authenticate(): Promise<string> {
    const { username: name, password = '' } = this.settings;
    const { token } = (await this.callAnyone((member, options) =>
      postJson(member, '/v3/auth/authenticate', { name, password }, options),
    )) as { token?: unknown };
    if (typeof token === 'string') return token;
    throw new HttpError(`it gave no token for "${this.names.username}"`, undefined);
  }

  private async callAnyone<T>(call: Call<T>, token?: string): Promise<T> {
    const { longestCallMs: limit = longestCallMs } = this.settings;
    const end = performance.now() + limit;
    const problems: string[] = [];
    for (const [i, member] of [...this.members].entries()) {
      const left = Math.max(1, end - performance.now());
      try {
        const answer = await call(member, {
          tls: this.settings.tls,
          token,
          connections: this.connections,
          timeoutMs: left / (this.settings.endpoints.length - i),
        });
        this.members = [member, ...this.members.filter((one) => one !== member)];
        return answer;
      } catch (error) {
        if (error instanceof HttpError && error.code !== undefined && !passing.has(error.code)) throw error;
        problems.push(`${member.origin}: ${(error as Error).message}`);
      }
    }
    throw new EtcdUnavailableError(
      ErrorCode.TryAgainLater,
      `No member of etcd can answer. See that ${this.settings.endpoints.map(({ origin }) => origin).join(', ')} is up and has a leader, or correct "${this.names.endpoints}"`,
      problems.join('; '),
    );
  }

  private get names(): SettingNames {
    return this.settings.names ?? defaultNames;
  }

  /** What a refusal by the cluster means to an operator. */
  private explained(error: unknown): unknown {
    if (!(error instanceof HttpError)) return error;
    const { names } = this;
    const { username } = this.settings;
    const who = username ? `user "${username}"` : `a caller without "${names.username}"`;
    return new CniError(
      ErrorCode.TryAgainLater,
      `etcd refuses ${who}: ${error.message}. Correct "${names.username}" and "${names.password}", or give the user what it needs with "etcdctl role grant-permission"`,
    );
  }
}

/** True for a refusal of the token, rather than of what the user asks for. */
function isStale(error: unknown): boolean {
  return (
    error instanceof HttpError &&
    (error.code === unauthenticated || error.message.includes('revision of auth store is old'))
  );
}
