/**
 * One call of one verb: what the runtime asks, and what the plugin uses to answer. Everything that belongs to
 * a call is kept here, never in the module or the process, since one process may serve many calls at once.
 */

import type { AttachmentId } from '../attachment.ts';
import { getLink, type Link } from '../kernel/link.ts';
import { Programs } from '../kernel/programs.ts';
import { openRouteSocket, type RouteSocket } from '../kernel/route-socket.ts';
import { openSandbox, openSandboxIfPresent, type Sandbox } from '../kernel/sandbox.ts';
import { seenLinks } from '../kernel/seen-links.ts';
import type { Sharing } from '../kernel/sharing.ts';
import type { NetConf } from './config.ts';
import { type Command, type Environment, type Invocation, parseArgs } from './invocation.ts';
import type { ProgramLock } from './program-lock.ts';
import type { CallRecord } from './record.ts';
import type { Result } from './result.ts';

/** Environment variable that tells a delegate in another process how deeply it is nested. */
export const depthVariable = 'CNI_DELEGATION_DEPTH';

/** The context of a call, whichever plugin it is for. */
export interface CallContext {
  /** Path of this suite's program, which is installed under every plugin's name. */
  readonly program: string;
  readonly invocation: Invocation;
  /** Standard input as received. */
  readonly stdin: string;
  readonly environment: Environment;
  /** Writes a line to the call's standard error. */
  readonly warn: (message: string) => void;
  /** How the call shares its process with others; undefined when it has one to itself. */
  readonly sharing?: Sharing | undefined;
  /** The lock that is held by programs which ADD or DEL starts. */
  readonly programLock?: ProgramLock | undefined;
  /** Aborted when the runtime gives up, in a process that outlives the call. */
  readonly signal?: AbortSignal | undefined;
  /** Record of the call for its log and trace; undefined when nobody asks for it. */
  readonly record?: CallRecord | undefined;
  /** How many plugins have delegated to one another to get here; 0 for the one that the runtime called. */
  readonly depth: number;
  /** Runs a plugin of this executable in a call of its own; undefined when there is none by that name. */
  readonly runEmbedded: (type: string, context: CallContext) => Promise<Result | undefined> | undefined;
  /** {@link Plugin.interfaceGoes} of a plugin of this executable; "after" when there is no such plugin. */
  readonly interfaceGoes: (type: string) => Promise<InterfaceGoes>;
}

/**
 * When DEL removes the interface:
 * - after the addresses are released, as the IPAM plugin may communicate through it;
 * - while they are released, if only this node can hand them out again;
 * - before they are released, if another node could be given them at once.
 */
export type InterfaceGoes = 'after' | 'beside' | 'before';

/** What the runner has read from the context. */
export interface CallInput<C> {
  readonly config: C & NetConf;
  readonly prevResult: Result | undefined;
  readonly validAttachments: readonly AttachmentId[];
}

/** A step that undoes something. */
export type UndoStep = () => Promise<void> | void;

/** An undo step, and what it does, as in "delete interface "eth0"". */
interface Undo {
  readonly what: string;
  readonly step: UndoStep;
  /** Steps that must have succeeded before this one may run. */
  needs: readonly Undo[];
}

/** Warns of something that does not fail a call: on standard error, and in the log. */
export function warnOf({ record, warn }: CallContext, message: string): void {
  record?.noteWarning(message);
  warn(message);
}

/** One call of one verb. It closes what it has opened when it is disposed of. */
export class Call<C = object> implements AttachmentId, Disposable {
  readonly context: CallContext;
  readonly config: C & NetConf;
  /** Result of the previous plugin or, on CHECK and DEL, of the whole chain. */
  readonly prevResult: Result | undefined;
  /** GC: the attachments to keep. */
  readonly validAttachments: readonly AttachmentId[];
  /** Runs programs of the host with the call's environment. */
  readonly programs: Programs;
  private readonly journal: Undo[] = [];
  private openHost: RouteSocket | undefined;
  private openedSandbox: Sandbox | undefined;
  private readonly kept: Disposable[] = [];

  constructor(context: CallContext, input: CallInput<C>) {
    this.context = context;
    this.config = input.config;
    this.prevResult = input.prevResult;
    this.validAttachments = input.validAttachments;
    const { environment, sharing, record, programLock } = context;
    this.programs = new Programs(environment, sharing, record?.noteProgram, () => programLock?.held() ?? []);
  }

  get command(): Command {
    return this.context.invocation.command as Command;
  }

  /** Name of the network. */
  get network(): string {
    return this.config.name;
  }

  get containerId(): string {
    return this.context.invocation.containerId;
  }

  get ifname(): string {
    return this.context.invocation.ifname;
  }

  /** Path of the sandbox's network namespace, "" when the runtime gave none. */
  get netns(): string {
    return this.context.invocation.netns;
  }

  /** The attachment that the call is about, as a plain object. */
  get attachment(): AttachmentId {
    const { network, containerId, ifname } = this;
    return { network, containerId, ifname };
  }

  /** A socket in the host's network namespace. */
  get host(): RouteSocket {
    this.openHost ??= openRouteSocket();
    return this.openHost;
  }

  /**
   * Finds an interface of the host by its name, an alternative name or its index.
   * @returns undefined when it does not exist.
   * @throws NetlinkError
   */
  hostLink(which: string | number): Link | undefined {
    const { once } = this.programs;
    if (!once) return getLink(this.host, which);
    const { byName, byIndex } = seenLinks(once);
    return typeof which === 'string' ? byName.get(which) : byIndex.get(which);
  }

  /** The sandbox. @throws NetnsGoneError when its namespace does not exist. */
  get sandbox(): Sandbox {
    this.openedSandbox ??= openSandbox(this.netns);
    return this.openedSandbox;
  }

  /** The sandbox, undefined when its namespace no longer exists or the runtime gave none. */
  get sandboxIfPresent(): Sandbox | undefined {
    this.openedSandbox ??= openSandboxIfPresent(this.netns);
    return this.openedSandbox;
  }

  /** Keeps something open until the call has ended, including any rollback. */
  keep(one: Disposable): void {
    this.kept.push(one);
  }

  /** Reads CNI_ARGS. @throws Error for names outside `known`, unless the runtime says IgnoreUnknown. */
  args<K extends string>(known: readonly K[]): Partial<Record<K, string>> {
    return parseArgs(this.context.invocation.args, known);
  }

  /** Warns of something that does not fail the verb: see {@link warnOf}. */
  warn(message: string): void {
    warnOf(this.context, message);
  }

  /**
   * Registers how to undo what ADD has just made, and only that: never "whatever has this name", which may
   * belong to a live attachment. The steps run in reverse order when ADD fails.
   * @param what the step does, for the log: in the imperative, as in `delete interface "eth0"`.
   */
  undo(what: string, step: UndoStep): void {
    this.journal.push({ what, step, needs: [] });
  }

  /** How many steps are registered. */
  get undoCount(): number {
    return this.journal.length;
  }

  /**
   * Makes the undo steps registered last run after the `between` steps registered before them, and only if
   * all of those succeed.
   * @param first how many earlier steps keep their place. @param between how many steps now run sooner.
   */
  postponeUndo(first: number, between: number): void {
    const later = this.journal.splice(first + between);
    const needs = this.journal.slice(first);
    for (const undo of later) undo.needs = [...undo.needs, ...needs];
    this.journal.splice(first, 0, ...later);
  }

  /** Keeps what was done so far, whatever fails from now on. */
  settle(): void {
    this.journal.length = 0;
  }

  /**
   * Registers an undo step that runs after those registered since, and only if all of those succeed.
   * @param first how many steps were registered before them: {@link undoCount} then.
   */
  undoLast(first: number, what: string, step: UndoStep): void {
    const between = this.undoCount - first;
    this.undo(what, step);
    this.postponeUndo(first, between);
  }

  /**
   * Undoes everything that ADD has made. When a step fails, only the steps that need it are skipped.
   * @param failed what failed, for warnings.
   * @returns whether every step succeeded.
   */
  async rollBack(failed = 'ADD'): Promise<boolean> {
    const { record } = this.context;
    const undone = new Set<Undo>();
    let isClean = true;
    for (let undo = this.journal.pop(); undo; undo = this.journal.pop()) {
      try {
        const missing = undo.needs.find((one) => !undone.has(one));
        if (missing) throw new Error(`It did not ${undo.what}, as it could not ${missing.what}`);
        await undo.step();
        undone.add(undo);
        record?.noteUndone(undo.what);
      } catch (error) {
        isClean = false;
        const { message } = error as Error;
        record?.noteUndone(undo.what, message);
        this.warn(`While undoing a failed ${failed}: ${message}`);
      }
    }
    return isClean;
  }

  [Symbol.dispose](): void {
    this.openHost?.close();
    this.openedSandbox?.socket.close();
    this.openedSandbox?.netns.close();
    this.openHost = undefined;
    this.openedSandbox = undefined;
    for (let one = this.kept.pop(); one; one = this.kept.pop()) one[Symbol.dispose]();
  }
}
