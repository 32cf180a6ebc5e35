/**
 * Runs a network's plugins as libcni does for every runtime: ADD in order, each with the result of the one
 * before; DEL in reverse order, each with the final one. Source: CNI specification 1.1.0, sections 3 and 4.
 */

import type { AttachmentId } from '../../lib/attachment.ts';
import { findPlugin } from '../../lib/cni/delegate.ts';
import { NotStartedError, runExecutable } from '../../lib/cni/exec.ts';
import { ifnameProblem, isValidName } from '../../lib/cni/invocation.ts';
import { type Result, readOutput } from '../../lib/cni/result.ts';
import { atLeast } from '../../lib/cni/version.ts';
import { CniError, ErrorCode } from '../../lib/errors.ts';
import type { Once } from '../../lib/kernel/sharing.ts';
import {
  pluginConfig,
  type ResultJson,
  recordedResult,
  resultJson,
} from '../../lib/networks/plugin-config.ts';
import { type CachedAttachment, readCached, removeCached, writeCached } from './cache.ts';
import { hasGarbageCollection, type NetworkList, type PluginEntry } from './conflist.ts';

/** The runtime's parameters for an attachment. */
export interface Runtime {
  readonly containerId: string;
  /** Path of the sandbox's namespace, "" when it is gone. */
  readonly netns: string;
  readonly ifname: string;
  /** CNI_ARGS. */
  readonly args: readonly (readonly [string, string])[];
  /** Values by capability, such as portMappings. */
  readonly capabilityArgs: Readonly<Record<string, unknown>>;
}

/** What is the same for every attachment. */
export interface Environment {
  /** Directories to look plugins up in. */
  readonly path: readonly string[];
  /** Directory above `results`. */
  readonly cacheDir: string;
  /** Is told of each run of a plugin once it has ended. */
  readonly onRun?: (run: PluginRun) => void;
  /** Is told of what went wrong without stopping the verb. */
  readonly onWarning: (message: string) => void;
  /** Environment variables for the plugins, besides those of CNI. */
  readonly variables: NodeJS.ProcessEnv;
  /** Shares what is seen with others that look at the host at the same time. */
  readonly once?: Once;
  /** How an executable is run; as a child when left out. */
  readonly execute?: Execute;
}

/**
 * Runs a plugin's executable.
 * @returns what it printed. @throws CniError that it printed, or that says how it failed.
 */
export type Execute = (file: string, stdin: string, env: NodeJS.ProcessEnv) => Promise<string>;

/** One run of a plugin, for the operator to look at. */
export interface PluginRun {
  readonly command: string;
  readonly type: string;
  readonly file: string;
  readonly stdin: string;
  readonly milliseconds: number;
  /** What it printed, or how it failed. */
  readonly outcome: { output: string } | { error: Error };
}

/**
 * Attaches a container and records the result.
 * @throws CniError of the plugin that failed; the ones before it have already been run.
 */
export async function addNetwork(
  list: NetworkList,
  runtime: Runtime,
  environment: Environment,
): Promise<ResultJson> {
  const result = await addPlugins(list, runtime, environment);
  const { name: network, bytes: config } = list;
  writeCached(environment.cacheDir, { ...runtime, network, config, result });
  return result;
}

/**
 * Attaches a container without recording it.
 * @param added receives the plugins whose ADD has succeeded.
 * @throws as {@link addNetwork} does: PluginFailedError when the plugin after those was run and failed.
 */
export async function addPlugins(
  list: NetworkList,
  runtime: Runtime,
  environment: Environment,
  added: PluginEntry[] = [],
): Promise<ResultJson> {
  checkRuntime(runtime);
  let last: { result: Result; version: string } | undefined;
  for (const plugin of list.plugins) {
    const config = pluginConfig(list, plugin, runtime, last?.result);
    const output = await run('ADD', plugin.type, config, runtime, environment);
    added.push(plugin);
    last = readOutput(output, plugin.type, list.cniVersion);
  }
  return resultJson(last!.result, last!.version);
}

/**
 * Checks that an attachment is as ADD left it.
 * @param cached its record, if the caller has read it already, or has it from somewhere else.
 * @throws CniError of the plugin that finds a fault, or when there is no record of the attachment.
 */
export async function checkNetwork(
  list: NetworkList,
  runtime: Runtime,
  environment: Environment,
  cached?: CachedAttachment,
): Promise<void> {
  checkRuntime(runtime);
  if (!atLeast(list.cniVersion, '0.4.0'))
    throw new CniError(
      ErrorCode.IncompatibleVersion,
      `Network "${list.name}" has cniVersion "${list.cniVersion}", which has no CHECK. Set it to "0.4.0" or newer`,
    );
  if (list.disableCheck) {
    environment.onWarning(`Nothing is checked: network "${list.name}" has "disableCheck" set`);
    return;
  }
  const { result } = cached ?? readCached(environment.cacheDir, { ...runtime, network: list.name }) ?? {};
  if (!result)
    throw new CniError(
      ErrorCode.UnknownContainer,
      `There is no record that container "${runtime.containerId}" was attached to network "${list.name}" as ` +
        `"${runtime.ifname}". Attach it with "cni add" first`,
    );
  const prevResult = recordedResult(result, list, environment.once);
  for (const plugin of list.plugins)
    await run('CHECK', plugin.type, pluginConfig(list, plugin, runtime, prevResult), runtime, environment);
}

/**
 * Detaches a container and forgets the result. Doing so again, or without a result, is not an error.
 * @param options.goesOn whether the other plugins are run after one has failed, as suits a failed ADD.
 * @throws CniError of the first plugin that fails; the record is then kept.
 */
export async function deleteNetwork(
  list: NetworkList,
  runtime: Runtime,
  environment: Environment,
  { goesOn = false } = {},
): Promise<void> {
  checkRuntime(runtime);
  const id = { ...runtime, network: list.name };
  let result: Result | undefined;
  try {
    const recorded = readCached(environment.cacheDir, id)?.result;
    result = recorded && recordedResult(recorded, list);
  } catch (error) {
    // A damaged record must not keep a container from being taken down.
    environment.onWarning((error as Error).message);
  }
  await deletePlugins(list, runtime, environment, { result, goesOn });
  removeCached(environment.cacheDir, id);
}

/**
 * Detaches a container, regardless of any record in the cache.
 * @param options.result of ADD, where it is known.
 * @param options.goesOn whether the other plugins are run after one has failed.
 * @throws CniError of the first plugin that fails.
 */
export async function deletePlugins(
  list: NetworkList,
  runtime: Runtime,
  environment: Environment,
  { result, goesOn = false }: { readonly result?: Result | undefined; readonly goesOn?: boolean } = {},
): Promise<void> {
  const known = atLeast(list.cniVersion, '0.4.0') ? result : undefined;
  const failures: unknown[] = [];
  for (const plugin of list.plugins.toReversed())
    try {
      await run('DEL', plugin.type, pluginConfig(list, plugin, runtime, known), runtime, environment);
    } catch (error) {
      failures.push(error);
      if (!goesOn) break;
    }
  if (failures.length > 0) throw failures[0];
}

/** Asks each plugin whether it can serve ADD. @throws CniError of the first one that cannot. */
export async function statusOfNetwork(list: NetworkList, environment: Environment): Promise<void> {
  if (!atLeast(list.cniVersion, '1.1.0')) {
    environment.onWarning(
      `Nothing is asked: network "${list.name}" has cniVersion "${list.cniVersion}", and STATUS came with 1.1.0`,
    );
    return;
  }
  for (const plugin of list.plugins)
    await run('STATUS', plugin.type, pluginConfig(list, plugin), nobody, environment);
}

/**
 * Has each plugin search for what is left of attachments, where the version has GC.
 * @param valid the attachments to keep.
 * @returns every failure; none of them stops the collection.
 */
export async function collectGarbage(
  list: NetworkList,
  valid: readonly AttachmentId[],
  environment: Environment,
): Promise<Error[]> {
  if (!hasGarbageCollection(list)) return [];
  const failures: Error[] = [];
  const keep = valid.map(({ containerId, ifname }) => ({ containerID: containerId, ifname }));
  // The second key is the name in the specification's first edition.
  const keys = { 'cni.dev/valid-attachments': keep, 'cni.dev/attachments': keep };
  for (const plugin of list.plugins) {
    const config = JSON.stringify({ ...JSON.parse(pluginConfig(list, plugin)), ...keys });
    try {
      await run('GC', plugin.type, config, nobody, environment);
    } catch (error) {
      failures.push(error as Error);
    }
  }
  return failures;
}

/** STATUS and GC do not concern a container, but libcni sets the variables all the same. */
const nobody: Runtime = { containerId: '', netns: '', ifname: '', args: [], capabilityArgs: {} };

async function run(
  command: string,
  type: string,
  stdin: string,
  { containerId, netns, ifname, args }: Runtime,
  { path, onRun, variables, once, execute = runExecutable }: Environment,
): Promise<string> {
  const file = find(type, path, once);
  const start = performance.now();
  const report = (outcome: PluginRun['outcome']) =>
    onRun?.({ command, type, file, stdin, milliseconds: performance.now() - start, outcome });
  try {
    const output = await execute(file, stdin, {
      ...variables,
      CNI_COMMAND: command,
      CNI_CONTAINERID: containerId,
      CNI_NETNS: netns,
      CNI_IFNAME: ifname,
      CNI_ARGS: args.map(([key, value]) => `${key}=${value}`).join(';'),
      CNI_PATH: path.join(':'),
    });
    report({ output });
    return output;
  } catch (error) {
    report({ error: error as Error });
    if (error instanceof NoAnswerError) throw error;
    const { code, message, details } = error as CniError;
    if (error instanceof NotStartedError) throw new NoAnswerError(code, message, details);
    throw new PluginFailedError(type, code, `Plugin "${type}" failed ${command}: ${message}`, details);
  }
}

/** A plugin answered with an error. */
export class PluginFailedError extends CniError {
  override readonly name = 'PluginFailedError';
  /** The type in its configuration. */
  readonly type: string;

  /** @param rest as for {@link CniError}. */
  constructor(type: string, ...rest: ConstructorParameters<typeof CniError>) {
    super(...rest);
    this.type = type;
  }
}

/** A plugin could not be asked: it is not installed, cannot be started, or did not answer. */
export class NoAnswerError extends CniError {
  override readonly name = 'NoAnswerError';
}

function find(type: string, path: readonly string[], once?: Once): string {
  try {
    return findPlugin(type, path, once);
  } catch (error) {
    throw new NoAnswerError(ErrorCode.Internal, (error as Error).message);
  }
}

function checkRuntime({ containerId, ifname }: Runtime): void {
  if (!isValidName(containerId))
    throw new CniError(
      ErrorCode.InvalidEnvironment,
      `Container ID "${containerId}" must begin with a letter or digit and go on with letters, digits, "_", "." or "-"`,
    );
  const problem = ifnameProblem(ifname);
  if (problem)
    throw new CniError(
      ErrorCode.InvalidEnvironment,
      `Interface name "${ifname}" ${problem}. Set CNI_IFNAME to a name such as "eth0"`,
    );
}
