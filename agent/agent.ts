/**
 * The agent: a process that stays, and does what each start of a plugin would do, without the start-up cost.
 * It has no state of its own: the disk and the kernel are the only truth, so that calls through it, calls
 * without it and the reference plugins can be mixed.
 */

import { readFileSync } from 'node:fs';
import { createServer, type Server, type Socket } from 'node:net';
import { normalize } from 'node:path';
import { depthVariable } from '../lib/cni/call.ts';
import type { CallObserver } from '../lib/cni/record.ts';
import { errnoOf } from '../lib/file.ts';
import { groupCommits } from '../lib/group-commit.ts';
import { listenOn } from '../lib/kernel/listen.ts';
import type { Sharing } from '../lib/kernel/sharing.ts';
import { Turns } from '../lib/turns.ts';
import type { PluginTable } from '../main.ts';
import { type CallServer, serve } from './connection.ts';
import { isPeerIn, peerUser, surroundingsOf } from './peer.ts';
import { waitForEnd } from './pipe.ts';
import type { Offer } from './protocol.ts';
import { type AgentStatus, type FinishedCall, Statistics } from './statistics.ts';

/** Where launchers look for the agent. */
export const defaultSocket = '/run/cni/agent.sock';

/** How an agent runs. */
export interface AgentOptions {
  /** Path of its socket. */
  readonly socket: string;
  readonly plugins: PluginTable;
  /** Path of the launcher that it was started by. */
  readonly program: string;
  /** Digest of its installed tree. */
  readonly build: string;
  /** How many calls of the runtime may be under way at once; the rest wait in order, but any DEL first. */
  readonly concurrency: number;
  /** After how many milliseconds without a call it ends; 0 for never. */
  readonly idleTimeoutMs: number;
}

/** Is told of an agent's calls. */
export interface AgentObserver extends CallObserver {
  /** A call begins. @param waitedMs how long it has waited for its turn, in milliseconds. */
  hasTurn?(waitedMs: number): void;
  /** A call has ended, whether or not anybody took its answer. */
  finished?(call: FinishedCall): void;
}

/** A call that must wait because too many are under way. */
interface WaitingCall {
  readonly command: string;
  begin(): void;
}

/** A running agent. */
export class Agent implements CallServer {
  readonly statistics = new Statistics();
  /** Told of calls, in addition to the log. */
  readonly observers: AgentObserver[] = [];
  /** What parts of the agent add to its status. */
  readonly statusParts: (() => Partial<AgentStatus>)[] = [];
  /** Called when it has nothing left to do: it was replaced, idle for long, or told to stop. */
  onEnd: () => void = () => {};
  private readonly options: AgentOptions;
  private readonly surroundings = surroundingsOf('self');
  /** What calls and other work in this process share. */
  readonly sharing: Sharing = { waitForEnd, together: groupCommits() };
  private readonly turns = new Turns();
  private waiting: readonly WaitingCall[] = [];
  /** Calls that were accepted, and other work, until they are done. */
  private unfinished = 0;
  /** Calls of the runtime under way, not counting delegates that call back into the agent. */
  private running = 0;
  private readonly ending = new AbortController();
  private idleTimer: NodeJS.Timeout | undefined;
  private server: Server | undefined;

  constructor(options: AgentOptions) {
    this.options = options;
  }

  get plugins(): PluginTable {
    return this.options.plugins;
  }

  get program(): string {
    return this.options.program;
  }

  /** Aborted once it takes no more calls: other work is to come to its end as well. */
  get stopping(): AbortSignal {
    return this.ending.signal;
  }

  /**
   * Listens on the socket, or on the one that systemd has passed.
   * @throws Error when another agent has it.
   */
  async listen(): Promise<void> {
    const { socket } = this.options;
    const server = createServer({ allowHalfOpen: true }, (connection) => {
      void serve(connection, this);
    });
    this.server = server;
    const inUse = `Another agent listens on "${socket}" already. Stop it, or give another --socket`;
    await listenOn(server, socket, process.env, inUse);
    server.on('error', (error) => process.stderr.write(`${error.message}\n`));
    this.restartIdleTimer();
  }

  /** Takes no more calls, and tells {@link onEnd} once those under way are done. */
  stop(): void {
    this.ending.abort();
    clearTimeout(this.idleTimer);
    this.endIfDone();
  }

  accepts(offer: Offer, socket: Socket): boolean {
    let isOurs = false;
    try {
      isOurs = this.isOwn(offer, socket);
    } finally {
      if (!isOurs) {
        this.statistics.refused++;
        if (offer.build !== this.options.build && this.isReplaced()) this.stop();
      }
    }
    return isOurs;
  }

  /**
   * A call is the agent's own if it comes from its user, its installed tree, its namespaces and its root
   * directory. What the offer says of these rules out others cheaply; what counts is what the kernel says.
   * @throws Error when the agent may not see the caller's namespaces.
   */
  private isOwn(
    { build, mountNamespace, networkNamespace, name, environment }: Offer,
    socket: Socket,
  ): boolean {
    return (
      !this.stopping.aborted &&
      peerUser(socket) === process.getuid?.() &&
      build === this.options.build &&
      mountNamespace === this.surroundings['ns/mnt'] &&
      networkNamespace === this.surroundings['ns/net'] &&
      this.options.plugins.has(name) &&
      isSameToAll(environment.CNI_NETNS) &&
      (environment.CNI_PATH ?? '').split(':').every(isSameToAll) &&
      isPeerIn(socket, this.surroundings)
    );
  }

  /** True when the launcher under our name belongs to another build: the next call needs another agent. */
  private isReplaced(): boolean {
    try {
      return !readFileSync(this.options.program).includes(this.options.build);
    } catch (error) {
      // Any other error, such as having no descriptor left, says nothing about it.
      return errnoOf(error) === 'ENOENT' || errnoOf(error) === 'ENOTDIR';
    }
  }

  /**
   * Runs a call once nothing is under way for the same container and interface: the runtime may have given up
   * on an ADD which is still being undone here when DEL comes.
   * @param gone aborted when nobody waits for the call any more, which then must do nothing.
   */
  async schedule<T>(
    { environment }: Offer,
    gone: AbortSignal,
    call: (waitedMs: number) => Promise<T>,
  ): Promise<T> {
    const start = performance.now();
    const {
      CNI_COMMAND: command = '',
      CNI_CONTAINERID: container,
      CNI_IFNAME: ifname,
      [depthVariable]: depth,
    } = environment;
    const work = async () => {
      const waitedMs = performance.now() - start;
      for (const observer of this.observers) observer.hasTurn?.(waitedMs);
      this.statistics.running++;
      try {
        return await call(waitedMs);
      } finally {
        this.statistics.running--;
      }
    };
    // A delegate is part of a call under way, which continues only once the delegate is done, so it must not
    // wait for what such calls hold. A node whose STATUS has to wait is taken out of service.
    if (depth || command === 'STATUS' || command === 'VERSION') return await work();
    const limited = () => this.runWithinLimit(command, gone, work);
    return await (container ? this.takeTurn(container, ifname ?? '', limited) : limited());
  }

  /**
   * Does something while no call for the same container and interface is under way. The agent does not end
   * before it is done.
   */
  async takeTurn<T>(containerId: string, ifname: string, work: () => Promise<T>): Promise<T> {
    return await this.keepAlive(() => this.turns.take(`${containerId}/${ifname}`, work));
  }

  async keepAlive<T>(work: () => Promise<T>): Promise<T> {
    clearTimeout(this.idleTimer);
    this.unfinished++;
    try {
      return await work();
    } finally {
      this.unfinished--;
      this.restartIdleTimer();
      this.endIfDone();
    }
  }

  private async runWithinLimit<T>(command: string, gone: AbortSignal, call: () => Promise<T>): Promise<T> {
    if (this.running < this.options.concurrency) this.running++;
    // Its launcher is gone, so it does nothing; the DEL that follows waits for it.
    else if (!(await this.waitForPlace(command, gone))) return await call();
    try {
      return await call();
    } finally {
      this.running--;
      this.beginNext();
    }
  }

  /** @returns true once the call has a place, false when its launcher is gone. */
  private async waitForPlace(command: string, gone: AbortSignal): Promise<boolean> {
    if (gone.aborted) return false;
    return await new Promise((resolve) => {
      const leave = () => {
        this.wait(this.waiting.filter((one) => one !== entry));
        resolve(false);
      };
      const begin = () => {
        this.running++;
        gone.removeEventListener('abort', leave);
        resolve(true);
      };
      const entry = { command, begin };
      gone.addEventListener('abort', leave, { once: true });
      this.wait([...this.waiting, entry]);
    });
  }

  /** Begins the call that has waited longest, but a DEL before others, as it frees what they may wait for. */
  private beginNext(): void {
    const next = this.waiting.find(({ command }) => command === 'DEL') ?? this.waiting[0];
    this.wait(this.waiting.filter((one) => one !== next));
    next?.begin();
  }

  /** @param calls all that are to wait, the oldest first. */
  private wait(calls: readonly WaitingCall[]): void {
    this.waiting = calls;
    this.statistics.queued = calls.length;
  }

  record(offer: Offer, code: number | undefined, milliseconds: number): void {
    const call = this.statistics.add(offer.name, offer.environment.CNI_COMMAND ?? '', code, milliseconds);
    for (const observer of this.observers) observer.finished?.(call);
  }

  status(): AgentStatus {
    return Object.assign(
      this.statistics.report(this.options.build),
      ...this.statusParts.map((part) => part()),
    );
  }

  private restartIdleTimer(): void {
    clearTimeout(this.idleTimer);
    const { idleTimeoutMs } = this.options;
    if (idleTimeoutMs > 0 && this.unfinished === 0 && !this.stopping.aborted)
      this.idleTimer = setTimeout(() => this.stop(), idleTimeoutMs);
  }

  private endIfDone(): void {
    if (this.stopping.aborted && this.unfinished === 0) this.onEnd();
  }

  /**
   * Closes the socket. Last of all: until then new connections are accepted and calls refused at once, so
   * that launchers do not wait.
   */
  async close(): Promise<void> {
    const { server } = this;
    if (server) await new Promise((resolve) => server.close(resolve));
  }
}

/** Whether a path leads the agent to what it leads its caller to. Source: proc(5). */
function isSameToAll(path = ''): boolean {
  const isOfProcess = /^\/(proc\/(self|thread-self)|dev\/fd)(\/|$)/.test(normalize(path));
  return path === '' || (path.startsWith('/') && !isOfProcess);
}
