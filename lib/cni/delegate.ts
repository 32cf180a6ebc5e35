/**
 * Delegation: running another plugin on behalf of this call.
 * Source: CNI specification 1.1.0, section 4.
 */

import { readFileSync, statSync } from 'node:fs';
import { CniError, ErrorCode } from '../errors.ts';
import { statusAt } from '../file.ts';
import { eachTime, type Once } from '../kernel/sharing.ts';
import { type Call, depthVariable } from './call.ts';
import { errorObject } from './error-object.ts';
import type { Command, Environment, Invocation } from './invocation.ts';
import type { CallRecord } from './record.ts';
import { type Result, readOutput } from './result.ts';

/** How a delegate's call differs from this one. */
export interface DelegateOptions {
  /** Standard input for the delegate; the call's own when left out. */
  stdin?: string;
  /** The verb; the call's own when left out. */
  command?: Command;
  /** Variables of the environment that differ from this call's. */
  target?: DelegateTarget;
  /** Version of a result that does not state its own; the call's when left out. */
  version?: string;
}

/** Variables of a delegate's environment, under the names that they have in an {@link Invocation}. */
export type DelegateTarget = Partial<Pick<Invocation, 'containerId' | 'netns' | 'ifname' | 'args' | 'path'>>;

/** The variables of a {@link DelegateTarget}. */
const targetVariables = {
  containerId: 'CNI_CONTAINERID',
  netns: 'CNI_NETNS',
  ifname: 'CNI_IFNAME',
  args: 'CNI_ARGS',
  path: 'CNI_PATH',
} as const;

/** A plugin in another process has failed. Like many plugins, it may leave it to DEL to undo what it did. */
export class ElsewhereError extends CniError {
  override readonly name = 'ElsewhereError';
}

/** A plugin within this process has failed, and could not undo everything that it had done. */
export class LeftoverError extends CniError {
  override readonly name = 'LeftoverError';

  /** @param error why ADD failed. */
  static from(error: unknown): LeftoverError {
    const { code, msg, details } = errorObject(error);
    return new LeftoverError(code, msg, details);
  }
}

/**
 * Runs the IPAM plugin's ADD.
 * @throws CniError, also when the plugin returns no address.
 */
export async function ipamAdd(call: Call): Promise<Result> {
  const type = requireIpam(call);
  const result = await delegate(call, type, { command: 'ADD' });
  if (!result || result.ips.length === 0)
    throw new CniError(
      ErrorCode.Internal,
      `IPAM plugin "${type}" returned no IP address. Check the addresses in the "ipam" section`,
    );
  return result;
}

/**
 * Runs a verb of the IPAM plugin other than ADD, by default the call's own. Does nothing without an IPAM
 * plugin.
 */
export async function ipam(call: Call, command: Command = call.command): Promise<void> {
  const type = call.config.ipam?.type;
  if (type) await delegate(call, type, { command });
}

/**
 * Runs another plugin with this call's environment and configuration: within this process when CNI_PATH leads
 * to this very executable, else as a child.
 *
 * If this ADD fails later on, the delegate's ADD is undone by its DEL. A delegate whose own ADD fails has
 * undone it already; a DEL would then release what a live attachment of the same name holds.
 * @param type name of the plugin.
 * @returns the result of ADD, undefined for other verbs.
 * @throws CniError the plugin's own error, or what kept it from running; ElsewhereError when it failed in
 *   another process, LeftoverError when it failed in this process and could not be undone.
 */
export async function delegate(
  call: Call,
  type: string,
  options: DelegateOptions = {},
): Promise<Result | undefined> {
  const { context } = call;
  const { stdin = context.stdin, command = call.command, target = {}, version } = options;
  const registerDel = () => {
    if (command !== 'ADD') return;
    call.undo(
      `run DEL of "${type}"`,
      async () => void (await delegate(call, type, { ...options, stdin, command: 'DEL' })),
    );
  };
  const depth = context.depth + 1;
  const environment = { ...context.environment, ...environmentOf(target), CNI_COMMAND: command };
  const look = context.sharing?.once ?? eachTime;
  const file = findPlugin(type, target.path ?? context.invocation.path, look);
  if (look(`own ${file}`, () => isSameProgram(file, context.program))) {
    const invocation = { ...context.invocation, ...target, command };
    const running = context.runEmbedded(type, { ...context, environment, invocation, stdin, depth });
    if (running) {
      const result = await running;
      registerDel();
      return result;
    }
  }
  const record = context.record?.ofDelegate(type, environment, file);
  const given = { ...environment, [depthVariable]: String(depth), ...record?.delegateEnvironment };
  const elsewhere = { type, file, stdin, environment: given, registerDel, record, version };
  const run = () => runElsewhere(call, elsewhere);
  return record ? record.of(run) : run();
}

function environmentOf(target: DelegateTarget): Environment {
  const given = Object.entries(target).filter(([, value]) => value !== undefined);
  return Object.fromEntries(
    given.map(([key, value]) => [targetVariables[key as keyof DelegateTarget], [value].flat().join(':')]),
  );
}

/** A delegate that runs as a process of its own. */
interface Elsewhere {
  readonly type: string;
  readonly file: string;
  readonly stdin: string;
  readonly environment: Environment;
  readonly record: CallRecord | undefined;
  readonly version: string | undefined;
  /** Registers the DEL that undoes ADD. */
  registerDel(): void;
}

async function runElsewhere(
  { context, config }: Call,
  { type, file, stdin, environment, record, version, registerDel }: Elsewhere,
): Promise<Result | undefined> {
  const { KilledError, NotStartedError, runExecutable } = await import('./exec.ts');
  let output: string;
  try {
    const { signal, sharing, warn } = context;
    // Where a process serves many calls, its standard error belongs to none of them.
    output = await runExecutable(file, stdin, environment, { signal, warn: sharing && warn });
  } catch (error) {
    if (error instanceof KilledError) registerDel();
    else if (error instanceof CniError && !(error instanceof NotStartedError))
      throw new ElsewhereError(error.code, error.message, error.details);
    throw error;
  }
  // Before its output is read: whether or not that makes sense, the delegate has done its work.
  registerDel();
  if (environment.CNI_COMMAND !== 'ADD') return undefined;
  // A delegate that prints nothing has nothing to tell.
  const { result } = readOutput(output.trim() || 'null', type, version ?? config.cniVersion);
  record?.noteResult(result);
  return result;
}

/**
 * Looks a plugin up in CNI_PATH, passing over directories that are out of reach.
 * @param look shares what it finds with other calls of a read-only process.
 * @returns the path of its executable.
 * @throws CniError when the name is not a file name, or no directory contains it.
 */
export function findPlugin(type: string, path: readonly string[], look: Once = eachTime): string {
  return look(`plugin ${type} in ${path.join(':')}`, () => searchPlugin(type, path));
}

function searchPlugin(type: string, path: readonly string[]): string {
  if (type === '' || type.includes('/') || type === '.' || type === '..' || type.includes('\0'))
    throw new CniError(
      ErrorCode.Internal,
      `Plugin type "${type}" is not the name of an executable. Correct the "type"`,
    );
  for (const directory of path) {
    const file = `${directory}/${type}`;
    if (statusAt(file)?.isFile()) return file;
  }
  throw new CniError(
    ErrorCode.Internal,
    `Plugin "${type}" is not in CNI_PATH. Install it in ${path.map((dir) => `"${dir}"`).join(' or ') || 'a directory of CNI_PATH'}, ` +
      'or correct the "type"',
  );
}

function requireIpam(call: Call): string {
  const type = call.config.ipam?.type;
  if (type) return type;
  throw new CniError(
    ErrorCode.Internal,
    `Plugin "${call.config.type ?? ''}" needs addresses, but "ipam" names no plugin. Set "ipam.type", for example to "host-local"`,
  );
}

/** Largest program that is compared by content, in bytes: the launcher has a quarter of that size. */
const longestLauncher = 65_536;

/** True for links to one file, and for copies of the launcher, which is small. */
export function isSameProgram(file: string, program: string): boolean {
  // During an upgrade either may be gone for a moment.
  const [a, b] = [file, program].map((path) => statSync(path, { throwIfNoEntry: false }));
  if (!a || !b) return false;
  if (a.dev === b.dev && a.ino === b.ino) return true;
  return a.size === b.size && a.size <= longestLauncher && readFileSync(file).equals(readFileSync(program));
}
