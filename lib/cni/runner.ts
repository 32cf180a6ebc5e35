/**
 * The plugin runner: from the runtime's environment and standard input to a plugin's verb, and from its
 * result or error back to standard output. Source: CNI specification 1.1.0, section 2; the order of the
 * checks is the reference library's.
 */

import { CniError, ErrorCode } from '../errors.ts';
import { eachTime } from '../kernel/sharing.ts';
import { isObject } from '../object.ts';
import { Call, type CallContext, depthVariable, warnOf } from './call.ts';
import {
  checkCommand,
  checkDepth,
  checkName,
  checkVersion,
  refuseOwnNetns,
  withoutOwnNetns,
} from './call-checks.ts';
import { type NetConf, netConfShape, validAttachments } from './config.ts';
import { LeftoverError } from './delegate.ts';
import { errorObject, formatError } from './error-object.ts';
import { readInvocation } from './invocation.ts';
import { parseJson } from './json.ts';
import { openLog } from './log.ts';
import { decodeOwn } from './own-config.ts';
import type { Plugin } from './plugin.ts';
import { ProgramLock, settleNetwork } from './program-lock.ts';
import { type CallObserver, CallRecord } from './record.ts';
import { formatResult, type Result, seenResult } from './result.ts';
import { decode, object, SchemaError } from './schema.ts';
import { newestVersion } from './version.ts';

/** Finds a plugin within this executable. */
export type FindPlugin = (name: string) => Promise<Plugin<never>> | undefined;

/** Where a call comes from and where its answer goes. */
export interface Caller {
  /** Path of this suite's program: a delegate that is the same program is run within this process. */
  readonly program: string;
  readonly environment: CallContext['environment'];
  readonly sharing?: CallContext['sharing'];
  readonly signal?: CallContext['signal'];
  readonly warn: (message: string) => void;
  /** Told of the call and of those of its delegates, in addition to the log. */
  readonly observers?: readonly CallObserver[];
  /** How long the call has waited for its turn, in milliseconds. */
  readonly waitedMs?: number;
  /** @throws CniError when standard input cannot be read. */
  readStdin(): Promise<string>;
  /**
   * Writes to standard output, which ends the call.
   * @param exit code of the call.
   * @throws Error when nobody reads it, in which case ADD is undone.
   */
  print(text: string, exit: number): Promise<void>;
}

/**
 * Runs a plugin as an executable does.
 * @returns the exit code.
 */
export async function runPlugin(plugin: Plugin<never>, caller: Caller, find: FindPlugin): Promise<number> {
  const record = await startRecord(plugin, caller);
  const exit = await answer(plugin, caller, find, record);
  await record?.end();
  return exit;
}

/** @returns undefined when nobody asks for a record of the call. */
async function startRecord({ name }: Plugin<never>, caller: Caller): Promise<CallRecord | undefined> {
  const { environment, warn, waitedMs, sharing, observers = [] } = caller;
  const verb = environment.CNI_COMMAND;
  if (!verb) return undefined;
  const log = await openLog(environment, warn, sharing?.once);
  if (!log && observers.length === 0) return undefined;
  const audience = { observers: log ? [...observers, log] : observers, warn };
  return new CallRecord({ plugin: name, verb, environment, waitedMs }, audience);
}

/** Runs a plugin, and prints its result or error. @returns the exit code. */
async function answer(
  plugin: Plugin<never>,
  caller: Caller,
  find: FindPlugin,
  record: CallRecord | undefined,
): Promise<number> {
  const { program, environment, warn, sharing, signal } = caller;
  let version: string | undefined;
  let printing = false;
  const print = async (text: string) => {
    printing = true;
    await caller.print(text, 0);
  };
  try {
    const invocation = readInvocation(environment);
    if (invocation.command === '') {
      warn(about(plugin));
      return 0;
    }
    if (invocation.command === 'VERSION') {
      await print(`${JSON.stringify({ cniVersion: newestVersion, supportedVersions: plugin.versions })}\n`);
      return 0;
    }
    const stdin = await caller.readStdin();
    const config = parseConfig(stdin);
    version = versionOf(config);
    const depth = Number(/^\d$/.exec(environment[depthVariable] ?? '')?.[0] ?? 0);
    const runEmbedded = embedded(find);
    const context: CallContext = {
      program,
      invocation,
      stdin,
      environment,
      warn,
      sharing,
      signal,
      record,
      depth,
      runEmbedded,
      interfaceGoes: async (type) => (await find(type))?.interfaceGoes ?? 'after',
    };
    await invoke(plugin, context, config, async (result) => {
      await print(formatResult(result, version!));
    });
    return 0;
  } catch (error) {
    record?.noteError(errorObject(error, environment));
    if (printing) warn(`The result could not be written: ${(error as Error).message}`);
    else
      await caller
        .print(formatError(error, version, environment), 1)
        .catch((cause: Error) =>
          warn(`The error could not be written: ${cause.message}. It was: ${(error as Error).message}`),
        );
    return 1;
  }
}

/** Runs delegates that are in this executable within this process. */
function embedded(find: FindPlugin): CallContext['runEmbedded'] {
  return (type, context) =>
    find(type)?.then((plugin) => {
      const record = context.record?.ofDelegate(type, context.environment);
      const run = () => invoke(plugin, { ...context, record }, parseConfig(context.stdin));
      return record ? record.of(run) : run();
    });
}

/**
 * Runs one verb within this process.
 * @param finish called with the result of ADD; if it fails, ADD is undone.
 * @returns the result of ADD, undefined for other verbs.
 * @throws CniError, or any Error, which the runtime sees with code 999.
 */
async function invoke(
  plugin: Plugin<never>,
  context: CallContext,
  json: Record<string, unknown>,
  finish: (result: Result) => Promise<void> | void = () => {},
): Promise<Result | undefined> {
  const { command } = context.invocation;
  const { record } = context;
  record?.noteNetwork(json.name);
  const config = decodeConfig(plugin, context, json);
  const valid = command === 'GC' ? validAttachments(config) : [];
  if (!valid) return undefined;
  const prevResult = readPrevResult(config, context);
  using programLock =
    command === 'ADD' || command === 'DEL' ? new ProgramLock(plugin.name, config.name, context) : undefined;
  using call = new Call<never>(withoutOwnNetns({ ...context, programLock }), {
    config: config as never,
    prevResult,
    validAttachments: valid,
  });
  switch (command) {
    case 'ADD':
      try {
        const result = await plugin.add(call);
        await finish(result);
        record?.noteResult(result);
        return result;
      } catch (error) {
        const isClean = await call.rollBack();
        throw isClean || context.depth === 0 ? error : LeftoverError.from(error);
      }
    case 'DEL':
      await programLock?.settle((message) => call.warn(message));
      await plugin.del(call);
      return undefined;
    case 'CHECK':
      await plugin.check?.(call);
      return undefined;
    case 'STATUS':
      try {
        await plugin.status?.(call);
      } catch (error) {
        throw asUnavailable(error);
      }
      return undefined;
    default:
      if (!plugin.gc) return undefined;
      await settleNetwork(plugin.name, config.name, (message) => call.warn(message));
      await plugin.gc(call);
      return undefined;
  }
}

/** Parses standard input, which must be a JSON object. @throws CniError */
export function parseConfig(stdin: string): Record<string, unknown> {
  let value: unknown;
  try {
    value = parseJson(stdin);
  } catch (error) {
    throw new CniError(
      ErrorCode.DecodingFailure,
      'Standard input is not the JSON of a network configuration. Correct its syntax',
      (error as Error).message,
    );
  }
  if (isObject(value)) return value;
  throw new CniError(ErrorCode.DecodingFailure, 'The network configuration must be a JSON object');
}

function versionOf(config: Record<string, unknown>): string {
  const { cniVersion } = decodeBase({ cniVersion: netConfShape.cniVersion }, config);
  return cniVersion || '0.1.0';
}

/**
 * Decodes a configuration: first the keys that all of them have, then, once it is known to be for this
 * plugin, the plugin's own.
 * @throws CniError for the former, SchemaError for the latter.
 */
export function decodeConfig(
  plugin: Plugin<never>,
  context: CallContext,
  json: Record<string, unknown>,
): NetConf & Record<string, unknown> {
  const { command } = context.invocation;
  const { shape } = plugin.config;
  const shared = Object.fromEntries(
    Object.entries(netConfShape).filter(([key]) => !Object.hasOwn(shape, key)),
  );
  const base = decodeBase(shared as typeof netConfShape, json);
  const { name = '' } = base;
  const cniVersion = base.cniVersion || '0.1.0';
  checkName(name);
  checkCommand(command);
  checkDepth(context, plugin);
  checkVersion(plugin, command, cniVersion);
  if (command === 'ADD' || command === 'CHECK')
    refuseOwnNetns(context.invocation, context.sharing?.once ?? eachTime);
  return { ...base, name, cniVersion, ...decodeOwn(plugin, context, json) };
}

function decodeBase<S extends Partial<typeof netConfShape>>(shape: S, json: Record<string, unknown>) {
  try {
    return decode(object(shape), json);
  } catch (error) {
    if (!(error instanceof SchemaError)) throw error;
    throw new CniError(ErrorCode.DecodingFailure, error.message);
  }
}

/**
 * Reads "prevResult" of a configuration.
 * @returns undefined when there is none, and on DEL also when it is damaged.
 * @throws SchemaError when it is damaged, for every other verb.
 */
export function readPrevResult(
  { prevResult, cniVersion }: NetConf,
  context: CallContext,
): Result | undefined {
  if (prevResult === undefined) return undefined;
  const own = isObject(prevResult) && typeof prevResult.cniVersion === 'string' ? prevResult.cniVersion : '';
  try {
    return seenResult(prevResult, own || cniVersion, context.sharing?.once);
  } catch (error) {
    // A damaged cache must not keep a container from being taken down.
    if (context.invocation.command !== 'DEL') throw error;
    warnOf(context, `Going on without "prevResult": ${(error as Error).message}`);
    return undefined;
  }
}

/** STATUS has error codes of its own; an error without a code means that no ADD can succeed. */
function asUnavailable(error: unknown): CniError {
  if (error instanceof CniError && error.code !== ErrorCode.Internal) return error;
  const { message } = error as Error;
  const details = error instanceof CniError ? error.details : undefined;
  return new CniError(ErrorCode.NotAvailable, message, details);
}

function about({ name, summary, versions }: Plugin<never>): string {
  return (
    `CNI plugin "${name}": ${summary}\n` +
    `CNI protocol versions supported: ${versions.join(', ')}\n` +
    'A container runtime runs it with CNI_COMMAND in the environment and a network configuration on standard input.'
  );
}
