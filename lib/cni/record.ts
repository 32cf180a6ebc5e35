/**
 * What is recorded of a call while it runs, for its log line, its span and the metrics. There is a record
 * only when somebody observes the call.
 */

import type { ProgramRun } from '../kernel/programs.ts';
import { type ErrorObject, errorObject } from './error-object.ts';
import type { Environment } from './invocation.ts';
import type { Result } from './result.ts';
import { parseTraceparent, type TraceContext } from './trace-context.ts';

/** Told of calls. What it throws is written to standard error, and does not fail the call. */
export interface CallObserver {
  /** A call begins: the runtime's, or a delegate's within another. */
  begin?(record: CallRecord): void;
  /**
   * A program of the host was run for a call. The call may have ended by then: what several calls do together
   * is done by the first of them.
   */
  ranProgram?(record: CallRecord, run: ProgramRun): void;
  /** A call has ended, and its answer was given. */
  end?(record: CallRecord): Promise<void> | void;
}

/** A pod, as Kubernetes' runtimes name it in CNI_ARGS. */
export interface Pod {
  readonly namespace: string | undefined;
  readonly name: string | undefined;
  readonly uid: string | undefined;
}

/** A step that was run to undo a failed ADD. */
export interface UndoneStep {
  readonly step: string;
  /** Why the step failed. */
  readonly error?: string;
}

/** Who observes a call, and where their errors go. */
interface Audience {
  readonly observers: readonly CallObserver[];
  readonly warn: (message: string) => void;
}

/** What a record begins with. */
interface Beginning {
  readonly plugin: string;
  /** CNI_COMMAND, whatever it is. */
  readonly verb: string;
  readonly environment: Environment;
  /** How long it had waited for its turn, in milliseconds. */
  readonly waitedMs?: number | undefined;
  /** The record of the plugin that delegates to this one. */
  readonly parent?: CallRecord;
  /** Path of the delegate's executable, if it runs as another process. */
  readonly executable?: string;
}

/** The record of one call of one verb. */
export class CallRecord {
  readonly plugin: string;
  readonly verb: string;
  /** The record of the plugin that delegates to this one. */
  readonly parent: CallRecord | undefined;
  /** Path of the delegate's executable, if it runs as another process. */
  readonly executable: string | undefined;
  readonly containerId: string | undefined;
  readonly ifname: string | undefined;
  readonly netns: string | undefined;
  readonly pod: Pod | undefined;
  /** Name of the network, once the configuration was read. */
  network: string | undefined;
  /** The span of the runtime's trace that the call belongs to or, if spans are made, the call's own. */
  trace: TraceContext | undefined;
  /** The runtime's TRACESTATE. */
  readonly traceState: string | undefined;
  /** Variables for the environment of delegates that run as another process. */
  delegateEnvironment: Readonly<Record<string, string>> = {};
  /** How long it had waited for its turn before it began, in milliseconds. */
  readonly waitedMs: number | undefined;
  /** When it began, in milliseconds since 1970. */
  readonly startTime = Date.now();
  /** How long it took, in milliseconds. */
  milliseconds = 0;
  /** What ADD returned. */
  result: Result | undefined;
  error: ErrorObject | undefined;
  readonly undone: UndoneStep[] = [];
  readonly warnings: string[] = [];
  private readonly start = performance.now();
  private readonly environment: Environment;
  private readonly audience: Audience;

  constructor(beginning: Beginning, audience: Audience) {
    const { plugin, verb, environment, parent, executable, waitedMs } = beginning;
    this.plugin = plugin;
    this.verb = verb;
    this.parent = parent;
    this.executable = executable;
    this.waitedMs = waitedMs;
    this.network = parent?.network;
    this.containerId = environment.CNI_CONTAINERID || undefined;
    this.ifname = environment.CNI_IFNAME || undefined;
    this.netns = environment.CNI_NETNS || undefined;
    this.pod = podOf(environment.CNI_ARGS ?? '');
    this.trace = parent?.trace ?? parseTraceparent(environment.TRACEPARENT);
    this.traceState = environment.TRACESTATE || undefined;
    this.environment = environment;
    this.audience = audience;
    this.tell((observer) => observer.begin?.(this));
  }

  /** Begins the record of a delegate. @param environment that it is called with, including its verb. */
  ofDelegate(plugin: string, environment: Environment, executable?: string): CallRecord {
    const verb = environment.CNI_COMMAND ?? '';
    const beginning = { plugin, verb, environment, parent: this, ...(executable && { executable }) };
    return new CallRecord(beginning, this.audience);
  }

  /** @param name as the configuration has it, which may be of any type. */
  noteNetwork(name: unknown): void {
    if (typeof name === 'string') this.network = name;
  }

  noteResult(result: Result): void {
    this.result = result;
  }

  noteError(error: ErrorObject): void {
    this.error = error;
  }

  noteWarning(message: string): void {
    this.warnings.push(message);
  }

  /** @param what the step did. @param error why it failed. */
  noteUndone(what: string, error?: string): void {
    this.undone.push({ step: what, ...(error !== undefined && { error }) });
  }

  readonly noteProgram = (run: ProgramRun): void => {
    this.tell((observer) => observer.ranProgram?.(this, run));
  };

  /** Makes the delegate's call that this record is for, and ends the record. @throws what the call throws. */
  async of<T>(call: () => Promise<T>): Promise<T> {
    try {
      return await call();
    } catch (error) {
      this.noteError(errorObject(error, this.environment));
      throw error;
    } finally {
      await this.end();
    }
  }

  /** Ends the record. Returns once every observer has finished. */
  async end(): Promise<void> {
    this.milliseconds = performance.now() - this.start;
    for (const observer of this.audience.observers) {
      try {
        await observer.end?.(this);
      } catch (error) {
        this.audience.warn((error as Error).message);
      }
    }
  }

  private tell(what: (observer: CallObserver) => void): void {
    for (const observer of this.audience.observers) {
      try {
        what(observer);
      } catch (error) {
        this.audience.warn((error as Error).message);
      }
    }
  }
}

/** Reads the pod from CNI_ARGS; undefined when that names none. */
function podOf(args: string): Pod | undefined {
  const value = (name: string) =>
    args
      .split(';')
      .find((pair) => pair.startsWith(`${name}=`))
      ?.slice(name.length + 1);
  const pod = {
    namespace: value('K8S_POD_NAMESPACE'),
    name: value('K8S_POD_NAME'),
    uid: value('K8S_POD_UID'),
  };
  return pod.namespace || pod.name || pod.uid ? pod : undefined;
}
