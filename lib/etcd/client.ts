/**
 * A client of etcd v3 by its JSON gateway, which takes less than a gRPC library to load. Source: etcd's API
 * reference, rpc.proto and kv.proto.
 */

import { CniError, ErrorCode } from '../errors.ts';
import { type Endpoint, HttpError, openStream, type PostOptions, postJson, type Tls } from './http.ts';

/** How long all members together are tried, in milliseconds; each one gets its share of what is left. */
const longestCall = 10_000;

/** Status codes of gRPC after which another member may do better, such as UNAVAILABLE. */
const passing = new Set([1, 4, 8, 10, 13, 14, 15]);
const unauthenticated = 16;

/** Where etcd is, and what it asks for. */
export interface EtcdSettings {
  readonly endpoints: readonly Endpoint[];
  readonly username?: string | undefined;
  readonly password?: string | undefined;
  readonly tls?: Tls | undefined;
  /** What the configuration calls these, for messages. */
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

/** No member answers, or none can, as when there is no leader. */
export class EtcdUnavailableError extends CniError {
  override readonly name = 'EtcdUnavailableError';
}

/** Asks one member. */
type Call<T> = (member: Endpoint, options: PostOptions) => Promise<T>;

/** A connection to a cluster, as long as one call needs it. */
export class EtcdClient {
  private readonly settings: EtcdSettings;
  /** Members in the order in which they are tried: the one that answered last comes first. */
  private members: Endpoint[];
  private token: string | undefined;

  constructor(settings: EtcdSettings) {
    this.settings = settings;
    const at = Math.floor(Math.random() * settings.endpoints.length);
    this.members = [...settings.endpoints.slice(at), ...settings.endpoints.slice(0, at)];
  }

  /**
   * Asks the cluster. When a member fails in the middle, nobody knows whether it has done what it was asked:
   * a request must be one that may be done twice.
   * @param path of the gateway, as in "/v3/kv/txn".
   * @throws EtcdUnavailableError when no member can answer; CniError when the cluster refuses.
   */
  ask(path: string, request: object): Promise<unknown> {
    return this.asUser((member, options) => postJson(member, path, request, options));
  }

  /**
   * Asks a member for what it goes on telling.
   * @param path of the gateway, as in "/v3/watch".
   * @param signal ends it.
   * @returns its messages, until it tells no more.
   * @throws as {@link ask}; while messages come, the error of what ends them.
   */
  follow(path: string, request: object, signal: AbortSignal): Promise<AsyncIterable<unknown>> {
    return this.asUser((member, options) => openStream(member, path, request, { ...options, signal }));
  }

  private async asUser<T>(call: Call<T>): Promise<T> {
    try {
      return await this.callWithToken(call);
    } catch (error) {
      // The token has expired, or the member was started anew.
      if (!(error instanceof HttpError) || error.code !== unauthenticated || !this.token)
        throw this.explained(error);
    }
    this.token = undefined;
    try {
      return await this.callWithToken(call);
    } catch (error) {
      throw this.explained(error);
    }
  }

  private async callWithToken<T>(call: Call<T>): Promise<T> {
    const { username, password = '' } = this.settings;
    if (username && !this.token) {
      const request = { name: username, password };
      const answer = (await this.callAnyone((member, options) =>
        postJson(member, '/v3/auth/authenticate', request, options),
      )) as { token?: unknown };
      if (typeof answer.token !== 'string')
        throw new HttpError(`it gave no token for "${this.names.username}"`, undefined);
      this.token = answer.token;
    }
    return await this.callAnyone(call);
  }

  private async callAnyone<T>(call: Call<T>): Promise<T> {
    const end = performance.now() + longestCall;
    const problems: string[] = [];
    for (const [i, member] of [...this.members].entries()) {
      const left = Math.max(1, end - performance.now());
      try {
        const answer = await call(member, {
          tls: this.settings.tls,
          token: this.token,
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

  /** What a refusal of the cluster means to an operator. */
  private explained(error: unknown): unknown {
    if (!(error instanceof HttpError)) return error;
    const { username } = this.settings;
    const { names } = this;
    const who = username ? `user "${username}"` : `a caller without "${names.username}"`;
    return new CniError(
      ErrorCode.TryAgainLater,
      `etcd refuses ${who}: ${error.message}. Correct "${names.username}" and "${names.password}", or give the user what it needs with "etcdctl role grant-permission"`,
    );
  }
}
