/**
 * The plugin runner: from the runtime's environment and standard input to a plugin's verb, and from its result or
 * error back to standard output. Source: CNI specification 1.1.0, section 2; the order of the checks is the
 * reference library's.
 */

import { readFileSync, statSync, writeSync } from 'node:fs';
import { type NetConf, netConfSchema, type ValidAttachment, validAttachments } from './config.ts';
import { CniError, ErrorCode } from './errors.ts';
import { type Invocation, isValidName, parseArgs, readInvocation } from './invocation.ts';
import { formatJson, formatResult, parseResult, type Result } from './result.ts';
import { decode, isObject, type Schema } from './schema.ts';
import { atLeast, newestVersion, specVersions } from './version.ts';

/** What a plugin says of itself. */
export interface PluginInfo {
  /** The name of its executable, which configurations give as "type". */
  readonly name: string;
  /** One sentence on what it does. */
  readonly summary: string;
  /** Versions of the specification it takes; all of them when left out. */
  readonly versions?: readonly string[];
}

/** A plugin: what it is called, what it is configured with, and its verbs. */
export interface Plugin<C = object> extends PluginInfo {
  /** Its own keys, beside those of {@link NetConf}. */
  readonly config: Schema<C>;
  /** @returns the result to print. Steps registered with {@link Call.undo} are taken back when it throws. */
  add(call: Call<C>): Promise<Result> | Result;
  del(call: Call<C>): Promise<void> | void;
  check?(call: Call<C>): Promise<void> | void;
  status?(call: Call<C>): Promise<void> | void;
  /** Called only when the runtime names the valid attachments, if only with an empty list. */
  gc?(call: Call<C>): Promise<void> | void;
}

/** One call of one verb. */
export interface Call<C = object> {
  readonly command: string;
  readonly containerId: string;
  readonly ifname: string;
  /** Path of the sandbox's network namespace, "" when the runtime gave none. */
  readonly netns: string;
  /** Directories to look delegates up in. */
  readonly path: readonly string[];
  readonly config: C & NetConf;
  /** Result of the plugin before, or on CHECK and DEL of the whole chain. */
  readonly prevResult: Result | undefined;
  /** GC: the attachments to keep. */
  readonly validAttachments: readonly ValidAttachment[];
  /** Standard input as received, for delegates. */
  readonly stdin: string;
  readonly invocation: Invocation;
  readonly embedded: EmbeddedPlugins;
  /** Reads CNI_ARGS. @throws CniError for names outside `known`, unless the runtime says IgnoreUnknown. */
  args<K extends string>(known: readonly K[]): Partial<Record<K, string>>;
  /** Registers how to take a step of ADD back; the steps are run in reverse if ADD fails. */
  undo(step: () => Promise<void> | void): void;
}

/** Finds a plugin within this executable, so that a delegate that is this same executable need not be started. */
export type EmbeddedPlugins = (name: string) => Promise<Plugin<never>> | undefined;

/**
 * Runs a plugin as an executable: environment and standard input in, standard output and exit code out.
 * @returns the exit code.
 */
export async function runPlugin<C>(plugin: Plugin<C>, embedded: EmbeddedPlugins): Promise<number> {
  let version: string | undefined;
  try {
    const invocation = readInvocation(process.env);
    if (invocation.command === '') {
      process.stderr.write(about(plugin));
      return 0;
    }
    if (invocation.command === 'VERSION') {
      print(`${JSON.stringify({ cniVersion: newestVersion, supportedVersions: versionsOf(plugin) })}\n`);
      return 0;
    }
    const stdin = await readStdin();
    const conf = parseNetConf(stdin);
    version = conf.cniVersion;
    const result = await invoke(plugin, invocation, stdin, embedded, conf);
    if (result) print(formatResult(result, version));
    return 0;
  } catch (error) {
    print(formatError(error, version));
    return 1;
  }
}

/**
 * Runs one verb within this process.
 * @returns the result of ADD, undefined for other verbs.
 * @throws CniError, or any Error, which the runtime gets to see with code 999.
 */
export async function invoke<C>(
  plugin: Plugin<C>,
  invocation: Invocation,
  stdin: string,
  embedded: EmbeddedPlugins,
  conf: NetConf = parseNetConf(stdin),
): Promise<Result | undefined> {
  const { command } = invocation;
  if (!['ADD', 'DEL', 'CHECK', 'STATUS', 'GC'].includes(command))
    throw new CniError(
      ErrorCode.InvalidEnvironment,
      `CNI_COMMAND is "${command.slice(0, 80)}", but it must be ADD, DEL, CHECK, STATUS, GC or VERSION`,
    );
  checkVersion(plugin, command, conf.cniVersion);
  if (command !== 'STATUS' && command !== 'GC') refuseOwnNetns(invocation);

  const journal: (() => Promise<void> | void)[] = [];
  const valid = command === 'GC' ? validAttachments(conf) : [];
  if (!valid) return undefined;
  const config = JSON.parse(stdin) as unknown;
  const call: Call<C> = {
    ...invocation,
    config: { ...decode(plugin.config, config), ...withoutIpam(plugin, conf) } as C & NetConf,
    prevResult: readPrevResult(conf, command),
    validAttachments: valid,
    stdin,
    invocation,
    embedded,
    args: (known) => parseArgs(invocation.args, known),
    undo: (step) => journal.push(step),
  };

  switch (command) {
    case 'ADD':
      try {
        return await plugin.add(call);
      } catch (error) {
        await rollBack(journal);
        throw error;
      }
    case 'DEL':
      await plugin.del(call);
      return undefined;
    case 'CHECK':
      await plugin.check?.(call);
      return undefined;
    case 'STATUS':
      await plugin.status?.(call);
      return undefined;
    default:
      await plugin.gc?.(call);
      return undefined;
  }
}

/**
 * The result that the plugins before this one left.
 * @throws Error when there is none.
 */
export function requirePrevResult(call: Call): Result {
  if (call.prevResult) return call.prevResult;
  throw new Error(
    call.command === 'CHECK'
      ? 'CHECK needs "prevResult" in the configuration. Pass the result that ADD gave'
      : 'The configuration has no "prevResult", so there is no interface to work on. ' +
          'Put this plugin after the one that makes the interface, in the "plugins" of a conflist',
  );
}

/** The error object of the specification, section "Error". */
export function formatError(error: unknown, cniVersion?: string): string {
  const message = error instanceof Error ? error.message : String(error);
  const { code, details } =
    error instanceof CniError ? error : { code: ErrorCode.Internal, details: detailsOf(error) };
  return formatJson({ cniVersion, code, msg: message, details });
}

/** Reads the keys that every configuration has. @throws CniError */
export function parseNetConf(stdin: string): NetConf {
  let value: unknown;
  try {
    value = JSON.parse(stdin);
  } catch (error) {
    throw new CniError(
      ErrorCode.DecodingFailure,
      'Standard input is not the JSON of a network configuration. Correct its syntax',
      (error as Error).message,
    );
  }
  if (!isObject(value))
    throw new CniError(ErrorCode.DecodingFailure, 'The network configuration must be a JSON object');
  let conf: ReturnType<typeof netConfSchema.decode>;
  try {
    conf = decode(netConfSchema, value);
  } catch (error) {
    throw new CniError(ErrorCode.DecodingFailure, (error as Error).message);
  }
  const { name = '', cniVersion = '' } = conf;
  if (name === '')
    throw new CniError(
      ErrorCode.InvalidNetworkConfig,
      'The network configuration has no "name". Give the network a name',
    );
  if (!isValidName(name))
    throw new CniError(
      ErrorCode.InvalidNetworkConfig,
      'The network\'s "name" is not valid: it must begin with a letter or digit and go on with letters, digits, "_", "." or "-"',
      name.slice(0, 300),
    );
  return { ...conf, name, cniVersion: cniVersion || '0.1.0' };
}

/** IPAM plugins decode "ipam" whole; for the others the shared key is enough. */
function withoutIpam<C>(plugin: Plugin<C>, conf: NetConf): NetConf {
  const { ipam, ...rest } = conf;
  const properties = plugin.config.json.properties as Record<string, unknown> | undefined;
  const own = Object.keys(properties ?? {});
  const shared = Object.fromEntries(Object.entries(rest).filter(([key]) => !own.includes(key)));
  return { ...shared, ...(ipam && !own.includes('ipam') && { ipam }) } as NetConf;
}

function readPrevResult(conf: NetConf, command: string): Result | undefined {
  const value = conf.prevResult;
  if (value === undefined) return undefined;
  const own = isObject(value) && typeof value.cniVersion === 'string' ? value.cniVersion : '';
  try {
    return parseResult(value, own || conf.cniVersion);
  } catch (error) {
    // A damaged cache must not keep a container from being taken down.
    if (command !== 'DEL') throw error;
    process.stderr.write(`Going on without "prevResult": ${(error as Error).message}\n`);
    return undefined;
  }
}

function versionsOf(plugin: PluginInfo): readonly string[] {
  return plugin.versions ?? specVersions;
}

function checkVersion(plugin: PluginInfo, command: string, version: string): void {
  const since = { CHECK: '0.4.0', GC: '1.1.0', STATUS: '1.1.0' }[command];
  if (since && !atLeast(version, since))
    throw new CniError(
      ErrorCode.IncompatibleVersion,
      `"cniVersion" is "${version}", which has no ${command}. Set it to "${since}" or newer`,
    );
  // An odd spelling such as "1.0" is as foreign as an unknown version: runtimes compare strings.
  if (!versionsOf(plugin).includes(version))
    throw new CniError(
      ErrorCode.IncompatibleVersion,
      `"cniVersion" is "${version}", which plugin "${plugin.name}" does not support. Set it to one that it does`,
      `config is "${version}", plugin supports ${versionsOf(plugin).join(', ')}`,
    );
}

/** Nothing may be done to the node's own namespace in a container's name, say because a process ID was reused. */
function refuseOwnNetns({ netns, netnsOverride }: Invocation): void {
  if (netns === '' || netnsOverride) return;
  let sandbox: { dev: number; ino: number };
  try {
    sandbox = statSync(netns);
  } catch {
    return; // Gone or out of reach: the verb decides what that means to it.
  }
  const own = statSync('/proc/self/ns/net');
  if (sandbox.dev === own.dev && sandbox.ino === own.ino)
    throw new CniError(
      ErrorCode.InvalidNetns,
      `CNI_NETNS "${netns}" is the namespace that the plugin itself runs in. Pass the container's own namespace, ` +
        'or set CNI_NETNS_OVERRIDE=1 if the node itself is to be attached',
    );
}

async function rollBack(journal: (() => Promise<void> | void)[]): Promise<void> {
  for (const step of journal.reverse()) {
    try {
      await step();
    } catch (error) {
      process.stderr.write(`While undoing a failed ADD: ${(error as Error).message}\n`);
    }
  }
}

function detailsOf(error: unknown): string | undefined {
  if (process.env.CNI_DEBUG && error instanceof Error) return error.stack;
  return error instanceof Error && error.cause instanceof Error ? error.cause.message : undefined;
}

function about(plugin: PluginInfo): string {
  return (
    `CNI plugin "${plugin.name}": ${plugin.summary}\n` +
    `CNI protocol versions supported: ${versionsOf(plugin).join(', ')}\n` +
    'A container runtime runs it with CNI_COMMAND in the environment and a network configuration on standard input.\n'
  );
}

async function readStdin(): Promise<string> {
  try {
    return readFileSync(0, 'utf8');
  } catch (error) {
    // A non-blocking pipe with nothing in it yet.
    if ((error as NodeJS.ErrnoException).code !== 'EAGAIN')
      throw new CniError(
        ErrorCode.IOFailure,
        'Cannot read the network configuration from standard input',
        String(error),
      );
  }
  const chunks: Buffer[] = [];
  for await (const chunk of process.stdin) chunks.push(chunk as Buffer);
  return Buffer.concat(chunks).toString('utf8');
}

function print(text: string): void {
  const bytes = Buffer.from(text);
  for (let sent = 0; sent < bytes.length; ) sent += writeSync(1, bytes, sent);
}
