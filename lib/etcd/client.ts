/**
 * A client of etcd v3 by its JSON gateway, which takes less than a gRPC library to load. Source: etcd's API
 * reference, rpc.proto and kv.proto.
 */

import { CniError, ErrorCode } from '../errors.ts';
import type { Endpoint, Tls } from '../http.ts';
import { HttpError, postJson } from './http.ts';

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
}

/** No member answers, or none can, as when there is no leader. */
export class EtcdUnavailableError extends CniError {
  override readonly name = 'EtcdUnavailableError';
}

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
  async ask(path: string, request: object): Promise<unknown> {
    try {
      return await this.askAsUser(path, request);
    } catch (error) {
      // The token has expired, or the member was started anew.
      if (!(error instanceof HttpError) || error.code !== unauthenticated || !this.token)
        throw this.explained(error);
    }
    this.token = undefined;
    try {
      return await this.askAsUser(path, request);
    } catch (error) {
      throw this.explained(error);
    }
  }

  private async askAsUser(path: string, request: object): Promise<unknown> {
    const { username, password = '' } = this.settings;
    if (username && !this.token) {
      const answer = (await this.askAnyone('/v3/auth/authenticate', { name: username, password })) as {
        token?: unknown;
      };
      if (typeof answer.token !== 'string')
        throw new HttpError('it gave no token for "etcd_username"', undefined);
      this.token = answer.token;
    }
    return await this.askAnyone(path, request);
  }

  private async askAnyone(path: string, request: object): Promise<unknown> {
    const end = performance.now() + longestCall;
    const problems: string[] = [];
    for (const [i, member] of [...this.members].entries()) {
      const left = Math.max(1, end - performance.now());
      try {
        const answer = await postJson(member, path, request, {
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
      `No member of etcd can answer. See that ${this.settings.endpoints.map(({ origin }) => origin).join(', ')} is up and has a leader, or correct "etcd_host"`,
      problems.join('; '),
    );
  }

  /** What a refusal of the cluster means to an operator. */
  private explained(error: unknown): unknown {
    if (!(error instanceof HttpError)) return error;
    const { username } = this.settings;
    const who = username ? `user "${username}"` : 'a caller without "etcd_username"';
    return new CniError(
      ErrorCode.TryAgainLater,
      `etcd refuses ${who}: ${error.message}. Correct "etcd_username" and "etcd_password", or give the user what it needs with "etcdctl role grant-permission"`,
    );
  }
}
