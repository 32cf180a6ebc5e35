/** etcd, on a host of a test: one member or several, on addresses of the host's loopback. */

import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import type { Host, Teardown } from './host.ts';
import { until } from './observe.ts';

/** Files with which a client shows who it is. */
interface ClientFiles {
  readonly ca: string;
  readonly cert: string;
  readonly key: string;
}

/** A cluster of etcd. */
export class Etcd {
  readonly host: Host;
  private readonly tls: ClientFiles | undefined;
  private readonly t: Teardown;
  private readonly size: number;
  private readonly options: readonly string[];
  private readonly members = new Map<number, ChildProcess>();

  private constructor(
    t: Teardown,
    host: Host,
    size: number,
    options: readonly string[],
    tls: ClientFiles | undefined,
  ) {
    this.t = t;
    this.tls = tls;
    this.host = host;
    this.size = size;
    this.options = options;
  }

  /**
   * Starts a cluster, and waits until it has a leader.
   * @param settings.size number of members.
   * @param settings.options of etcd(1), for each member.
   * @param settings.tls what a client needs, where the options have it listen with TLS.
   */
  static async start(
    t: Teardown,
    host: Host,
    { size = 1, options = [], tls }: { size?: number; options?: readonly string[]; tls?: ClientFiles } = {},
  ): Promise<Etcd> {
    const etcd = new Etcd(t, host, size, options, tls);
    await Promise.all(Array.from({ length: size }, (_, i) => etcd.startMember(i)));
    await etcd.untilHealthy();
    return etcd;
  }

  /**
   * Starts a member with TLS, which takes certificates of clients and a password. There are two authorities
   * in /run/pki, "own" and "other", each with NAME.crt, NAME-client.crt and NAME-client.key; the user is
   * "root", with password "secret".
   */
  static async startSecured(t: Teardown, host: Host): Promise<Etcd> {
    const script = `mkdir -p /run/pki; cd /run/pki
      for ca in own other; do
        openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=$ca -keyout $ca.key -out $ca.crt
        for name in server client; do
          openssl req -newkey rsa:2048 -nodes -subj /O=$name -keyout $ca-$name.key -out $ca-$name.csr
          printf 'subjectAltName=IP:127.0.1.1' > san
          openssl x509 -req -in $ca-$name.csr -CA $ca.crt -CAkey $ca.key -CAcreateserial -days 2 -extfile san -out $ca-$name.crt
        done
      done`;
    await host.run(['sh', '-ec', script]);
    const files = ['--cert-file=/run/pki/own-server.crt', '--key-file=/run/pki/own-server.key'];
    const etcd = await Etcd.start(t, host, {
      tls: { ca: '/run/pki/own.crt', cert: '/run/pki/own-client.crt', key: '/run/pki/own-client.key' },
      options: [...files, '--client-cert-auth', '--trusted-ca-file=/run/pki/own.crt'],
    });
    await etcd.ask('/v3/auth/user/add', { name: 'root', password: 'secret' });
    await etcd.ask('/v3/auth/role/add', { name: 'root' });
    await etcd.ask('/v3/auth/user/grant', { user: 'root', role: 'root' });
    return etcd;
  }

  /** From now on only those who know a password may ask. */
  async requirePassword(): Promise<void> {
    await this.ask('/v3/auth/enable', {});
  }

  /** "etcd_host" of all members. */
  get hosts(): string {
    return Array.from({ length: this.size }, (_, i) => `${this.client(i)}`).join(',');
  }

  /** Starts a member, also one that was killed. */
  async startMember(i: number): Promise<void> {
    const peer = (n: number) => `http://127.0.1.${n + 1}:2380`;
    const cluster = Array.from({ length: this.size }, (_, n) => `m${n}=${peer(n)}`).join(',');
    const argv = [
      ...['etcd', '--name', `m${i}`, '--data-dir', `/run/etcd/m${i}`, '--logger', 'zap'],
      ...['--listen-client-urls', this.client(i), '--advertise-client-urls', this.client(i)],
      ...['--listen-peer-urls', peer(i), '--initial-advertise-peer-urls', peer(i)],
      ...['--initial-cluster', cluster, '--initial-cluster-state', 'new', ...this.options],
    ];
    await this.host.run(['mkdir', '-p', '-m', '700', '/run/etcd']);
    const script = `echo started; exec "$@" > /run/etcd/m${i}.log 2>&1`;
    this.members.set(i, await this.host.start(this.t, ['sh', '-c', script, 'sh', ...argv]));
  }

  /** Ends a member at once. */
  async kill(i: number): Promise<void> {
    const member = this.members.get(i)!;
    const ended = once(member, 'exit');
    member.kill('SIGKILL');
    await ended;
  }

  /** Stops and continues a member, as a hung disk does. */
  signal(i: number, signal: 'SIGSTOP' | 'SIGCONT'): void {
    this.members.get(i)!.kill(signal);
  }

  /** Asks the first member, without any code of the suite. @returns what it answered. */
  async ask(path: string, request: object): Promise<Record<string, unknown>> {
    const url = `${this.client(0)}${path}`;
    return JSON.parse(await this.host.run(['curl', '-s', ...this.files, '-d', JSON.stringify(request), url]));
  }

  /** Keys that begin with a text, and their values. */
  async all(prefix = '/'): Promise<Record<string, string>> {
    const end = prefix.slice(0, -1) + String.fromCharCode(prefix.charCodeAt(prefix.length - 1) + 1);
    const request = { key: encode(prefix), range_end: encode(end) };
    const { kvs = [] } = (await this.ask('/v3/kv/range', request)) as {
      kvs?: { key: string; value?: string }[];
    };
    return Object.fromEntries(kvs.map(({ key, value = '' }) => [decode(key), decode(value)]));
  }

  async put(key: string, value: string): Promise<void> {
    await this.ask('/v3/kv/put', { key: encode(key), value: encode(value) });
  }

  /** Options of curl(1). */
  private get files(): string[] {
    return this.tls ? ['--cacert', this.tls.ca, '--cert', this.tls.cert, '--key', this.tls.key] : [];
  }

  private client(i: number): string {
    return `${this.tls ? 'https' : 'http'}://127.0.1.${i + 1}:2379`;
  }

  private untilHealthy(): Promise<void> {
    return until('etcd has a leader', async () => {
      const asked = Array.from({ length: this.size }, (_, i) =>
        this.host.tryRun(['curl', '-sf', ...this.files, `${this.client(i)}/health`]),
      );
      return (await Promise.all(asked)).every(({ stdout }) => stdout.includes('"true"'));
    });
  }
}

const encode = (text: string) => Buffer.from(text).toString('base64');
const decode = (text: string) => Buffer.from(text, 'base64').toString();
