/** etcd, with one member or several: on loopback addresses of one host, or each on a node of its own. */

import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { processStat } from '../../lib/kernel/process.ts';
import type { Host, Teardown } from './host.ts';
import { until } from './observe.ts';
import type { ClientFiles } from './pki.ts';

/** Where a member runs and listens. */
interface Place {
  readonly host: Host;
  readonly address: string;
}

/** How a cluster is set up. */
interface Setup {
  /** Command-line options of etcd(1), for each member. */
  readonly options?: readonly string[];
  /** What a client needs when the options make members use TLS. */
  readonly tls?: ClientFiles;
  /** Whether the members use TLS among themselves, too. */
  readonly peersHaveTls?: boolean;
}

/**
 * Codes of gRPC for what passes, such as a change of leader: DEADLINE_EXCEEDED, UNAVAILABLE, and UNAUTHENTICATED
 * where a login got no token.
 */
const passing: readonly unknown[] = [4, 14, 16];

/** A cluster of etcd. */
export class Etcd {
  private readonly places: readonly Place[];
  private readonly setup: Setup;
  private readonly t: Teardown;
  private readonly members = new Map<number, ChildProcess>();
  private password: string | undefined;

  private constructor(t: Teardown, places: readonly Place[], setup: Setup) {
    this.t = t;
    this.places = places;
    this.setup = setup;
  }

  /**
   * Starts a cluster on one host, and waits until it has a leader.
   * @param size number of members.
   */
  static start(t: Teardown, host: Host, { size = 1, ...setup }: Setup & { size?: number } = {}) {
    const places = Array.from({ length: size }, (_, i) => ({ host, address: `127.0.1.${i + 1}` }));
    return Etcd.startOn(t, places, setup);
  }

  /** Starts a cluster with a member on each of some nodes, and waits until it has a leader. */
  static async startOn(t: Teardown, places: readonly Place[], setup: Setup = {}): Promise<Etcd> {
    const etcd = new Etcd(t, places, setup);
    await Promise.all(places.map((_, i) => etcd.startMember(i)));
    await etcd.untilHealthy();
    return etcd;
  }

  /** "etcd_host" that names all members. */
  get hosts(): string {
    return this.places.map((_, i) => this.client(i)).join(',');
  }

  /** Makes the user "root" with this password, and enables authentication. */
  async requirePassword(password: string): Promise<void> {
    await this.ask('/v3/auth/user/add', { name: 'root', password });
    await this.ask('/v3/auth/role/add', { name: 'root' });
    await this.ask('/v3/auth/user/grant', { user: 'root', role: 'root' });
    await this.ask('/v3/auth/enable', {});
    this.password = password;
  }

  /** Starts a member, for the first time or after it was ended. */
  async startMember(i: number): Promise<void> {
    const peer = (n: number) =>
      `${this.setup.peersHaveTls ? 'https' : 'http'}://${this.places[n]!.address}:2380`;
    const cluster = this.places.map((_, n) => `m${n}=${peer(n)}`).join(',');
    const argv = [
      ...['etcd', '--name', `m${i}`, '--data-dir', `/run/etcd/m${i}/data`, '--logger', 'zap'],
      ...['--listen-client-urls', this.client(i), '--advertise-client-urls', this.client(i)],
      ...['--listen-peer-urls', peer(i), '--initial-advertise-peer-urls', peer(i)],
      ...['--initial-cluster', cluster, '--initial-cluster-state', 'new', ...(this.setup.options ?? [])],
    ];
    const { host } = this.places[i]!;
    await host.run(['mkdir', '-p', '-m', '700', `/run/etcd/m${i}`]);
    const script = `echo started; exec "$@" > /run/etcd/m${i}.log 2>&1`;
    this.members.set(i, await host.start(this.t, ['sh', '-c', script, 'sh', ...argv]));
  }

  /** Kills a member. */
  kill(i: number): Promise<void> {
    return this.end(i, 'SIGKILL');
  }

  /** Has a member write what it holds and exit. */
  stop(i: number): Promise<void> {
    return this.end(i, 'SIGTERM');
  }

  private async end(i: number, signal: 'SIGKILL' | 'SIGTERM'): Promise<void> {
    const member = this.members.get(i)!;
    if (!this.isRunning(i)) return;
    const ended = once(member, 'exit');
    member.kill(signal);
    await ended;
  }

  isRunning(i: number): boolean {
    const { exitCode, signalCode } = this.members.get(i)!;
    return exitCode === null && signalCode === null;
  }

  /** Sends a member a signal: stopped and continued, it is like one on a disk that hangs. */
  signal(i: number, signal: 'SIGSTOP' | 'SIGCONT' | 'SIGKILL'): void {
    this.members.get(i)!.kill(signal);
  }

  /** Waits until there is a leader. @returns its number. */
  async leader(): Promise<number> {
    let found = -1;
    await until('a member of etcd leads', async () => {
      const ids = await Promise.all(
        this.places.map(async (_, i) => {
          const { header, leader } = await this.ask('/v3/maintenance/status', {}, i);
          return { own: (header as { member_id: string }).member_id, leader };
        }),
      );
      found = ids.findIndex(({ own, leader }) => own === leader);
      return found >= 0;
    });
    return found;
  }

  /**
   * Asks a member, without using any code of the suite, until it can answer: not while it waits for a leader.
   * @returns what it answered.
   */
  async ask(path: string, request: object, member = 0): Promise<Record<string, unknown>> {
    let answer: Record<string, unknown> | undefined;
    await until(`member ${member} of etcd answers ${path}`, async () => {
      answer = await this.askOnce(path, request, member);
      return answer !== undefined && !passing.includes(answer.code);
    });
    return answer!;
  }

  /** Ends all leases, which has the effect of five minutes without a call: all hosts count as gone. */
  async forgetPresence(): Promise<void> {
    await until('nobody has a lease', async () => {
      const { leases = [] } = (await this.ask('/v3/lease/leases', {})) as { leases?: { ID: string }[] };
      for (const { ID } of leases) await this.ask('/v3/lease/revoke', { ID });
      return leases.length === 0;
    });
  }

  /** All keys with a prefix, and their values. */
  async all(prefix = '/', member = 0): Promise<Record<string, string>> {
    const end = prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);
    const request = { key: encode(prefix), range_end: encode(end) };
    const { kvs = [] } = (await this.ask('/v3/kv/range', request, member)) as {
      kvs?: { key: string; value?: string }[];
    };
    return Object.fromEntries(kvs.map(({ key, value = '' }) => [decode(key), decode(value)]));
  }

  put(key: string, value: string): Promise<void> {
    return this.putAll([[key, value]]);
  }

  /** Sets keys, at most 128, in one transaction. */
  async putAll(pairs: readonly (readonly [key: string, value: string])[]): Promise<void> {
    const success = pairs.map(([key, value]) => ({
      request_put: { key: encode(key), value: encode(value) },
    }));
    await this.ask('/v3/kv/txn', { success });
  }

  /**
   * How many client requests the members have answered, by their own count.
   * @param method all when left out.
   */
  async handled(method = '\\w+'): Promise<number> {
    const pattern = `^grpc_server_handled_total\\{.*grpc_method="(?:${method})".*\\} (\\d+)$`;
    const texts = await Promise.all(
      this.places.map(({ host }, i) => host.run(['curl', '-s', ...this.files, `${this.client(i)}/metrics`])),
    );
    const counts = texts.flatMap((text) => [...text.matchAll(new RegExp(pattern, 'gm'))]);
    return counts.reduce((sum, [, count]) => sum + Number(count), 0);
  }

  /** CPU time of the running members, in milliseconds, in steps of ten. */
  processorMs(): number {
    const ticks = [...this.members.values()].map(({ pid }) => {
      const fields = processStat(pid!);
      return Number(fields[11]) + Number(fields[12]);
    });
    return ticks.reduce((sum, one) => sum + one, 0) * 10;
  }

  /** Waits until every member answers and there is a leader. */
  untilHealthy(): Promise<void> {
    return until('etcd has a leader', async () => {
      const asked = this.places.map(({ host }, i) =>
        host.tryRun(['curl', '-sf', ...this.files, `${this.client(i)}/health`]),
      );
      return (await Promise.all(asked)).every(({ stdout }) => stdout.includes('"true"'));
    });
  }

  private async askOnce(
    path: string,
    request: object,
    member: number,
  ): Promise<Record<string, unknown> | undefined> {
    if (this.password === undefined) return await this.post(member, path, request);
    const login = { name: 'root', password: this.password };
    const answer = await this.post(member, '/v3/auth/authenticate', login);
    return answer && (await this.post(member, path, request, ['-H', `Authorization: ${answer.token}`]));
  }

  /** @returns undefined when there was no answer. */
  private async post(
    member: number,
    path: string,
    request: object,
    options: readonly string[] = [],
  ): Promise<Record<string, unknown> | undefined> {
    const url = `${this.client(member)}${path}`;
    const argv = ['curl', '-s', ...this.files, ...options, '-d', JSON.stringify(request), url];
    const { exit, stdout } = await this.places[member]!.host.tryRun(argv);
    return exit === 0 ? JSON.parse(stdout) : undefined;
  }

  /** The options of curl(1) for TLS. */
  private get files(): string[] {
    const { tls } = this.setup;
    return tls ? ['--cacert', tls.ca, '--cert', tls.cert, '--key', tls.key] : [];
  }

  private client(i: number): string {
    return `${this.setup.tls ? 'https' : 'http'}://${this.places[i]!.address}:2379`;
  }
}

const encode = (text: string) => Buffer.from(text).toString('base64');
const decode = (text: string) => Buffer.from(text, 'base64').toString();
