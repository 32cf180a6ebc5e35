/**
 * The daemon that keeps leases: plugins talk to it over a Unix socket, one line of JSON each way. What it must not forget stands in
 * files beside the socket.
 */

import { createHash } from 'node:crypto';
import { chmodSync, readdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { connect, createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { parseArgs } from 'node:util';
import { formatResult } from '../../lib/cni/result.ts';
import { formatError } from '../../lib/cni/runner.ts';
import { makeDirectory } from '../../lib/directory.ts';
import type { ClientOptions, ClientSettings } from './client.ts';
import { Lease, type LeaseOwner, leaseKey } from './lease.ts';
import { clientOptions, type DhcpConfig } from './options.ts';
import type { Reply, Request } from './protocol.ts';
import { defaultSocket } from './protocol.ts';

const usage = `Usage: dhcp daemon [OPTION...]
Keeps the leases of containers whose networks use "dhcp" for IPAM.

  -socketpath PATH        Unix socket to listen on (${defaultSocket})
  -pidfile PATH           write the process ID there
  -hostprefix PATH        directory that the node's root is mounted at
  -broadcast              ask servers to answer by broadcast
  -timeout DURATION       accepted for compatibility: an answer is awaited until the message is sent again
  -resendmax DURATION     longest pause before a message is sent again (62s)
  -resendtimeout DURATION when to give up getting an address (30s)
`;

interface Settings extends ClientSettings {
  socket: string;
  hostPrefix: string;
}

/**
 * Runs the daemon.
 * @param args command line behind "daemon".
 * @returns the exit code, when it could not start; else it ends with the process.
 */
export async function runDaemon(args: readonly string[]): Promise<number> {
  let settings: Settings;
  let pidFile: string | undefined;
  try {
    ({ settings, pidFile } = readArguments(args));
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${usage}`);
    return 2;
  }
  if (pidFile) writeFileSync(pidFile, `${process.pid}\n`);
  const daemon = new Daemon(settings);
  daemon.restore();
  await daemon.listen();
  return await new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const)
      process.once(signal, () => {
        daemon.stop();
        if (pidFile) rmSync(pidFile, { force: true });
        resolve(0);
      });
  });
}

class Daemon {
  private readonly settings: Settings;
  private readonly leases = new Map<string, Lease>();
  /** What is being done for a lease: the next thing waits for it. */
  private readonly busy = new Map<string, Promise<unknown>>();
  private readonly directory: string;
  private server: Server | undefined;

  constructor(settings: Settings) {
    this.settings = settings;
    this.directory = `${dirname(settings.socket)}/dhcp-leases`;
  }

  /** Takes up the leases that an earlier daemon wrote down. */
  restore(): void {
    makeDirectory(this.directory, 0o700);
    for (const name of readdirSync(this.directory)) {
      const file = `${this.directory}/${name}`;
      try {
        const lease =
          name.endsWith('.json') && Lease.restore(readFileSync(file, 'utf8'), this.settings, this.changed);
        if (lease) this.leases.set(lease.key, lease);
        else rmSync(file, { force: true });
      } catch (error) {
        process.stderr.write(
          `Cannot take up the lease in "${file}", so it is forgotten: ${(error as Error).message}\n`,
        );
        rmSync(file, { force: true });
      }
    }
  }

  /** Listens on the socket, or on the one that systemd passed. @throws Error when another daemon has it. */
  async listen(): Promise<void> {
    const { socket } = this.settings;
    this.server = createServer((connection) => this.serve(connection));
    // sd_listen_fds(3): the first descriptor is number 3.
    const passed = process.env.LISTEN_PID === String(process.pid) && process.env.LISTEN_FDS === '1';
    if (!passed) {
      if (await answers(socket))
        throw new Error(
          `Another daemon listens on "${socket}" already. Stop it, or give another -socketpath`,
        );
      rmSync(socket, { force: true });
    }
    await new Promise<void>((resolve, reject) => {
      this.server!.once('error', reject).listen(passed ? { fd: 3 } : { path: socket }, resolve);
    });
    if (!passed) chmodSync(socket, 0o600);
  }

  /** Stops without giving anything back: the next daemon takes the leases up. */
  stop(): void {
    for (const lease of this.leases.values()) lease.stop();
    this.server?.close();
  }

  private serve(connection: Socket): void {
    let text = '';
    connection.setEncoding('utf8').on('error', () => {});
    connection.on('data', (part: string) => {
      text += part;
      const end = text.indexOf('\n');
      if (end >= 0)
        void this.answer(text.slice(0, end)).then((reply) => connection.end(`${JSON.stringify(reply)}\n`));
      else if (text.length > 1024 * 1024) connection.destroy();
    });
  }

  private async answer(line: string): Promise<Reply> {
    try {
      const request = JSON.parse(line) as Request;
      switch (request.method) {
        case 'allocate':
          return { result: await this.serialize(request.owner, () => this.allocate(request)) };
        case 'release':
          await this.serialize(request.owner, () => this.release(leaseKey(request.owner)));
          return {};
        case 'check':
          return this.check(leaseKey(request.owner));
        case 'collect':
          for (const lease of [...this.leases.values()])
            if (lease.owner.network === request.network && !request.keep.includes(lease.key))
              this.release(lease.key);
          return {};
        case 'ping':
          return {};
        default:
          throw new Error('The plugin is of another version than the daemon. Restart the daemon');
      }
    } catch (error) {
      return { error: JSON.parse(formatError(error)) as NonNullable<Reply['error']> };
    }
  }

  private async allocate({
    owner,
    config,
    args,
  }: Extract<Request, { method: 'allocate' }>): Promise<unknown> {
    const key = leaseKey(owner);
    const own: LeaseOwner = { ...owner, netns: `${this.settings.hostPrefix}${owner.netns}` };
    const options: ClientOptions = clientOptions(config as DhcpConfig, key, args);
    let lease = this.leases.get(key);
    if (!lease) {
      lease = await Lease.acquire(own, options, this.settings, this.changed);
      this.leases.set(key, lease);
      this.save(lease);
    }
    return JSON.parse(formatResult(lease.result, '1.1.0'));
  }

  private release(key: string): void {
    const lease = this.leases.get(key);
    if (!lease) return;
    this.forget(lease);
    try {
      lease.release();
    } catch (error) {
      // The server takes it back by itself in time.
      process.stderr.write(`${key}: ${(error as Error).message}\n`);
    }
  }

  private check(key: string): Reply {
    if (!this.leases.has(key))
      throw new Error(
        'The DHCP daemon has no lease for the container. Delete the container and add it again',
      );
    return {};
  }

  private readonly changed = (lease: Lease, ended: boolean): void => {
    if (ended) {
      lease.stop();
      this.forget(lease);
    } else this.save(lease);
  };

  private forget(lease: Lease): void {
    this.leases.delete(lease.key);
    rmSync(this.fileOf(lease), { force: true });
  }

  private save(lease: Lease): void {
    const file = this.fileOf(lease);
    writeFileSync(`${file}.new`, lease.serialize(), { mode: 0o600 });
    renameSync(`${file}.new`, file);
  }

  private fileOf(lease: Lease): string {
    return `${this.directory}/${createHash('sha256').update(lease.key).digest('hex')}.json`;
  }

  /** A DEL that overtakes its ADD would leave the lease behind. */
  private async serialize<T>(owner: Omit<LeaseOwner, 'netns'>, work: () => T | Promise<T>): Promise<T> {
    const key = leaseKey(owner);
    const before = this.busy.get(key) ?? Promise.resolve();
    const now = before.then(work, work);
    this.busy.set(key, now);
    try {
      return await now;
    } finally {
      if (this.busy.get(key) === now) this.busy.delete(key);
    }
  }
}

function readArguments(args: readonly string[]): { settings: Settings; pidFile: string | undefined } {
  // Go's flags have one dash, or two.
  const { values } = parseArgs({
    args: args.map((arg) => arg.replace(/^-(?=[a-z])/, '--')),
    options: {
      pidfile: { type: 'string' },
      hostprefix: { type: 'string', default: '' },
      socketpath: { type: 'string', default: defaultSocket },
      broadcast: { type: 'boolean', default: false },
      timeout: { type: 'string', default: '10s' },
      resendmax: { type: 'string', default: '62s' },
      resendtimeout: { type: 'string', default: '30s' },
    },
  });
  readDuration('timeout', values.timeout);
  return {
    pidFile: values.pidfile,
    settings: {
      socket: values.socketpath,
      hostPrefix: values.hostprefix,
      broadcast: values.broadcast,
      resendMax: readDuration('resendmax', values.resendmax),
      resendTimeout: readDuration('resendtimeout', values.resendtimeout),
    },
  };
}

/** A duration as Go writes it, such as "1m30s". @returns milliseconds. */
function readDuration(name: string, text: string): number {
  const units: Record<string, number> = { ms: 1, s: 1000, m: 60_000, h: 3_600_000 };
  if (!/^(\d+(\.\d+)?(ms|s|m|h))+$/.test(text))
    throw new Error(`-${name} is "${text}", but it must be like "10s" or "1m30s"`);
  let sum = 0;
  for (const [, number, unit] of text.matchAll(/(\d+(?:\.\d+)?)(ms|s|m|h)/g))
    sum += Number(number) * units[unit!]!;
  return sum;
}

function answers(socket: string): Promise<boolean> {
  return new Promise((resolve) => {
    const probe = connect(socket, () => {
      probe.destroy();
      resolve(true);
    }).on('error', () => resolve(false));
  });
}
