/**
 * The daemon that keeps leases: plugins talk to it over a Unix socket. What it must not forget is in files
 * beside the socket. Requests for one attachment are answered one after the other; a renewal gives way to
 * them.
 */

import { lstatSync, rmSync, unlinkSync, writeFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { dirname } from 'node:path';
import { type AttachmentId, attachmentKey } from '../../lib/attachment.ts';
import { errorObject, formatError } from '../../lib/cni/error-object.ts';
import { formatResult } from '../../lib/cni/result.ts';
import { decode, object } from '../../lib/cni/schema.ts';
import { fileError } from '../../lib/file.ts';
import { listenOn } from '../../lib/kernel/listen.ts';
import { Turns } from '../../lib/turns.ts';
import { Lease, type LeaseKeeper } from './lease.ts';
import { LeaseFiles } from './lease-files.ts';
import { clientOptions, dhcpShape } from './options.ts';
import {
  type Allocation,
  longestLine,
  type Reply,
  type Request,
  readRequest,
  signOfLifeInterval,
} from './protocol.ts';
import { type DaemonSettings, readSettings, usage } from './settings.ts';

/**
 * Runs the daemon.
 * @param args command line after "daemon".
 * @returns the exit code, when it could not start or once a signal has stopped it.
 */
export async function runDaemon(args: readonly string[]): Promise<number> {
  let settings: DaemonSettings;
  try {
    settings = readSettings(args);
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n\n${usage}`);
    return 2;
  }
  const daemon = new Daemon(settings);
  try {
    await daemon.start();
  } catch (error) {
    process.stderr.write(`${(error as Error).message}\n`);
    daemon.close();
    return 1;
  }
  return await new Promise((resolve) => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const)
      process.once(signal, () => {
        daemon.stop();
        resolve(0);
      });
  });
}

/** How long a plugin may leave a connection idle, in milliseconds. */
const idleTimeout = 30_000;

class Daemon implements LeaseKeeper {
  readonly settings: DaemonSettings;
  private readonly leases = new Map<string, Lease>();
  /** Puts requests for an attachment in order: a DEL that overtook its ADD would leave the lease. */
  private readonly turns = new Turns();
  private files!: LeaseFiles;
  private server: Server | undefined;

  constructor(settings: DaemonSettings) {
    this.settings = settings;
  }

  /**
   * Listens, and takes up the leases that an earlier daemon wrote down.
   * @throws Error when another daemon has the socket.
   */
  async start(): Promise<void> {
    const { socket, pidFile } = this.settings;
    this.files = new LeaseFiles(`${dirname(socket)}/dhcp-leases`);
    await this.listen(socket);
    if (pidFile) writePidFile(pidFile);
    this.files.restoreAll(
      (text) => {
        const lease = Lease.restore(text, this);
        if (lease) this.leases.set(lease.key, lease);
        return lease !== undefined;
      },
      (message) => this.log(message),
    );
  }

  /** Stops without giving anything back: the next daemon takes the leases up. */
  stop(): void {
    for (const lease of this.leases.values()) lease.stop();
    this.close();
    if (this.settings.pidFile) rmSync(this.settings.pidFile, { force: true });
  }

  /** Stops listening. */
  close(): void {
    this.server?.close();
  }

  renewed(lease: Lease): void {
    // Its attachment may have been deleted meanwhile: then nothing is to be written down any more.
    if (this.leases.get(lease.key) === lease) this.attempt(() => this.files.save(lease.key, lease.toText()));
  }

  ended(lease: Lease): void {
    lease.stop();
    if (this.leases.get(lease.key) !== lease) return;
    this.leases.delete(lease.key);
    this.attempt(() => this.files.remove(lease.key));
  }

  log(message: string): void {
    process.stderr.write(`${message}\n`);
  }

  /** Listens on the socket, or on the one that systemd passed. */
  private async listen(socket: string): Promise<void> {
    this.server = createServer((connection) => this.serve(connection));
    const inUse = `Another daemon listens on "${socket}" already. Stop it, or give another -socketpath`;
    await listenOn(this.server, socket, process.env, inUse);
    // From now on a connection that cannot be accepted is no reason to end.
    this.server.on('error', (error) => this.log(error.message));
  }

  private serve(connection: Socket): void {
    let text = '';
    const read = (part: string) => {
      text += part;
      const end = text.indexOf('\n');
      if (end >= 0) {
        connection.off('data', read);
        void this.respond(connection, text.slice(0, end));
      } else if (text.length > longestLine) connection.destroy();
    };
    connection
      .setTimeout(idleTimeout, () => connection.destroy())
      .setEncoding('utf8')
      .on('error', () => {})
      .on('data', read);
  }

  private async respond(connection: Socket, line: string): Promise<void> {
    const signsOfLife = setInterval(() => connection.write('\n'), signOfLifeInterval);
    const reply = await this.answer(line);
    clearInterval(signsOfLife);
    connection.end(`${JSON.stringify(reply)}\n`);
  }

  private async answer(line: string): Promise<Reply> {
    try {
      return { result: await this.perform(readRequest(line)) };
    } catch (error) {
      return { error: JSON.parse(formatError(error)) as NonNullable<Reply['error']> };
    }
  }

  private async perform(request: Request): Promise<unknown> {
    switch (request.method) {
      case 'allocate':
        return await this.turns.take(attachmentKey(request.owner), () => this.allocate(request));
      case 'release':
        return await this.turns.take(attachmentKey(request.owner), () => this.release(request.owner));
      case 'check':
        return this.check(request.owner);
      case 'collect':
        return await this.collect(request);
      case 'ping':
        return undefined;
    }
  }

  private async allocate({
    owner,
    config,
    args,
  }: Extract<Request, { method: 'allocate' }>): Promise<Allocation> {
    const key = attachmentKey(owner);
    const options = clientOptions(decode(object(dhcpShape), config ?? {}), key, args);
    const netns = `${this.settings.hostPrefix}${owner.netns}`;
    const existing = this.leases.get(key);
    if (existing?.owner.netns === netns && existing.isLiving())
      return { result: printed(existing), isNew: false };
    // The lease of an earlier sandbox of this attachment, whose DEL never came.
    if (existing) await this.release(owner);
    const lease = await Lease.acquire({ ...owner, netns }, options, this);
    try {
      // A lease that cannot be saved is given back: after a restart, nobody would renew or release it.
      this.files.save(key, lease.toText());
    } catch (error) {
      await this.giveBack(lease);
      throw error;
    }
    this.leases.set(key, lease);
    return { result: printed(lease), isNew: true };
  }

  private async release(owner: AttachmentId): Promise<void> {
    const key = attachmentKey(owner);
    const lease = this.leases.get(key);
    this.leases.delete(key);
    if (lease) await this.giveBack(lease);
    this.files.remove(key);
  }

  private async collect({ network, keep }: Extract<Request, { method: 'collect' }>): Promise<void> {
    const kept = new Set(keep);
    const stale = [...this.leases.values()].filter(
      ({ key, owner }) => owner.network === network && !kept.has(key),
    );
    const outcomes = await Promise.allSettled(
      stale.map(({ owner }) => this.turns.take(attachmentKey(owner), () => this.release(owner))),
    );
    const failed = outcomes.find((outcome) => outcome.status === 'rejected');
    if (failed) throw failed.reason;
  }

  /** Does work that no request waits for: its failure is logged. */
  private attempt(work: () => void): void {
    try {
      work();
    } catch (error) {
      this.log(errorObject(error).msg);
    }
  }

  private check(owner: AttachmentId): void {
    if (!this.leases.has(attachmentKey(owner)))
      throw new Error(
        'The DHCP daemon has no lease for the container. Delete the container and add it again',
      );
  }

  private async giveBack(lease: Lease): Promise<void> {
    try {
      await lease.release();
    } catch (error) {
      this.log(`${lease.key}: ${errorObject(error).msg}. The server takes the address back in time`);
    }
  }
}

function printed({ result }: Lease): unknown {
  return JSON.parse(formatResult(result, '1.1.0'));
}

function writePidFile(file: string): void {
  try {
    // Whatever is there, even a link or a FIFO, is replaced rather than written to.
    if (lstatSync(file, { throwIfNoEntry: false })) unlinkSync(file);
    writeFileSync(file, `${process.pid}\n`, { flag: 'wx' });
  } catch (error) {
    throw fileError('write', file, error, ', or give another -pidfile');
  }
}
