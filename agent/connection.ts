/** One call, from the launcher's offer to the acknowledgement of its result. */

import type { Socket } from 'node:net';
import type { CallObserver } from '../lib/cni/record.ts';
import { runPlugin } from '../lib/cni/runner.ts';
import { ErrorCode } from '../lib/errors.ts';
import type { Sharing } from '../lib/kernel/sharing.ts';
import { finderIn, type PluginTable } from '../main.ts';
import { refuseMore } from './peer.ts';
import {
  accepted,
  encodeFrame,
  heartbeatMs,
  Incoming,
  type Offer,
  patienceMs,
  statusRequest,
} from './protocol.ts';
import type { Statistics } from './statistics.ts';

/** The agent, as far as a call needs to know it. */
export interface CallServer {
  readonly plugins: PluginTable;
  /** Path of the launcher, which is this suite's executable under every plugin's name. */
  readonly program: string;
  /** Told of calls, in addition to the log. */
  readonly observers: readonly CallObserver[];
  /** How calls share the process. */
  readonly sharing: Sharing;
  readonly statistics: Statistics;
  /** Tells whether a call is the agent's own. */
  accepts(offer: Offer, socket: Socket): boolean;
  /** Does something, and keeps the agent from ending before it is done. */
  keepAlive<T>(work: () => Promise<T>): Promise<T>;
  /** Waits until the call may run, and runs it. @param gone aborted when nobody waits for it any more. */
  schedule<T>(offer: Offer, gone: AbortSignal, call: (waitedMs: number) => Promise<T>): Promise<T>;
  /** What the agent reports about itself. */
  status(): unknown;
  /**
   * Told of a call that has ended.
   * @param code 0 for success, or the CNI error code; undefined when nobody took the answer.
   * @param milliseconds from the offer.
   */
  record(offer: Offer, code: number | undefined, milliseconds: number): void;
}

/** Serves a connection to its end. Whatever is wrong with it affects only this connection. */
export async function serve(socket: Socket, server: CallServer): Promise<void> {
  const incoming = new Incoming();
  const changes = new Changes(socket, incoming);
  try {
    const offer = await changes.wait(() => incoming.takeOffer());
    if (!offer) return;
    if (offer.name === statusRequest) {
      socket.write(encodeFrame('R', JSON.stringify(server.status())));
      return;
    }
    // An accepted call counts as under way even if its input is still to come.
    if (server.accepts(offer, socket))
      await server.keepAlive(() => serveCall(offer, socket, { changes, incoming }, server));
  } catch (error) {
    process.stderr.write(`A connection was dropped: ${(error as Error).message}\n`);
  } finally {
    socket.destroySoon();
  }
}

/** Serves an accepted call until its launcher has the result. */
async function serveCall(
  offer: Offer,
  socket: Socket,
  { changes, incoming }: Pick<Conversation, 'changes' | 'incoming'>,
  server: CallServer,
): Promise<void> {
  const start = performance.now();
  socket.write(accepted);
  const stdin = await changes.wait(() => incoming.takeInput());
  if (stdin === undefined) {
    // Nothing was done: the launcher got no answer to its offer in time, or its input comes too late, and it
    // runs the executable.
    server.statistics.refused++;
    return;
  }
  const heartbeat = setInterval(() => socket.write(encodeFrame('H')), heartbeatMs);
  // Nothing is sent after a result: the launcher then ends, and writing to it would lose what it said last.
  const answer = (text: string, exit: number) => {
    clearInterval(heartbeat);
    socket.write(encodeFrame('R', text, exit));
  };
  try {
    const code = await server.schedule(offer, changes.gone, (waitedMs) =>
      run(offer, stdin, socket, { changes, incoming, answer, waitedMs }, server),
    );
    server.record(offer, code, performance.now() - start);
  } finally {
    clearInterval(heartbeat);
  }
}

/** What is said on a connection. */
interface Conversation {
  readonly changes: Changes;
  readonly incoming: Incoming;
  /** How long the call has waited for its turn, in milliseconds. */
  readonly waitedMs: number;
  /** Sends the call's result or error. */
  answer(text: string, exit: number): void;
}

/** Runs a call. @returns its code, as {@link CallServer.record} takes it. */
async function run(
  offer: Offer,
  stdin: string,
  socket: Socket,
  { changes, incoming, answer, waitedMs }: Conversation,
  { plugins, program, sharing, observers }: CallServer,
): Promise<number | undefined> {
  // While the call waited for its turn, the runtime may have given up, and done something else since.
  if (changes.gone.aborted) return undefined;
  const { plugin } = await plugins.get(offer.name)!();
  let isAnswered = false;
  let code: number | undefined;
  const reply = (text: string, exit: number) => {
    isAnswered = true;
    if (!changes.gone.aborted) code = exit !== 0 && text ? codeOf(text) : 0;
    answer(text, exit);
  };
  const caller = {
    program,
    environment: offer.environment,
    observers,
    waitedMs,
    // A launcher that has its answer has ended.
    warn: (message: string) =>
      void (isAnswered
        ? process.stderr.write(`${message}\n`)
        : socket.write(encodeFrame('E', `${message}\n`))),
    sharing,
    signal: changes.gone,
    readStdin: async () => stdin,
    async print(text: string, exit: number) {
      reply(text, exit);
      // The runtime may have given up meanwhile: then nobody has the result, and ADD is undone.
      if (exit === 0 && !(await isAcknowledged(socket, changes, incoming))) {
        code = undefined;
        throw new Error('the runtime is gone');
      }
    },
  };
  const exit = await runPlugin(plugin, caller, finderIn(plugins));
  if (!isAnswered) reply('', exit);
  return code;
}

/** The code in an error as it is printed. A delegate may have left it out. */
function codeOf(text: string): number {
  const { code } = JSON.parse(text) as { code?: unknown };
  return Number(code) || ErrorCode.Internal;
}

/**
 * Whether the launcher has passed the result on. Once this gives up waiting, the launcher's acknowledgement
 * fails, so that it does not report a result that is about to be undone.
 */
async function isAcknowledged(socket: Socket, changes: Changes, incoming: Incoming): Promise<boolean> {
  const take = () => incoming.takeAcknowledgement() || undefined;
  if (await changes.wait(take)) return true;
  if (changes.gone.aborted) return false;
  refuseMore(socket);
  return (await changes.wait(take)) ?? false;
}

/** Waiting for what arrives on a connection. */
class Changes {
  private wake: () => void = () => {};
  private readonly closing = new AbortController();
  /** Aborted when the launcher is no longer there. */
  readonly gone = this.closing.signal;

  constructor(socket: Socket, incoming: Incoming) {
    socket.on('data', (chunk: Buffer) => {
      incoming.add(chunk);
      this.wake();
    });
    const close = () => {
      // With a reason: the default is an exception with a stack trace.
      this.closing.abort('The runtime is gone');
      this.wake();
    };
    socket.on('end', close).on('close', close).on('error', close);
  }

  /**
   * Waits until `take` gives something.
   * @returns undefined when the connection is closed, or nothing comes in time.
   */
  async wait<T>(take: () => T | undefined): Promise<T | undefined> {
    const end = performance.now() + patienceMs;
    for (;;) {
      const taken = take();
      if (taken !== undefined || this.gone.aborted) return taken;
      if (performance.now() >= end) {
        // The event loop runs timers before sockets, so data that has arrived may not have been read yet.
        await new Promise((resolve) => setImmediate(resolve));
        return take();
      }
      await new Promise<void>((resolve) => {
        const timeout = setTimeout(resolve, end - performance.now());
        this.wake = () => {
          clearTimeout(timeout);
          resolve();
        };
      });
    }
  }
}
