/**
 * What the runtime asks for: the CNI_* environment, checked as the specification's section
 * "Parameters" and the reference library do.
 */

import { CniError, ErrorCode } from '../errors.ts';

const commands = ['ADD', 'DEL', 'CHECK', 'STATUS', 'GC', 'VERSION'] as const;
/** A verb of the protocol. */
export type Command = (typeof commands)[number];

/** The environment of a call: what a process has in `process.env`. */
export type Environment = Readonly<Record<string, string | undefined>>;

/** What the environment of a call says. */
export interface Invocation {
  /** As given: an unknown verb is reported only after standard input was read. */
  readonly command: string;
  readonly containerId: string;
  /** Path of the sandbox's network namespace, "" when the runtime gave none. */
  readonly netns: string;
  /** Name of the interface inside the sandbox. */
  readonly ifname: string;
  /** CNI_ARGS as given. */
  readonly args: string;
  /** Directories to look delegates up in. */
  readonly path: readonly string[];
  /** True when CNI_NETNS_OVERRIDE allows CNI_NETNS to be the plugin's own namespace. */
  readonly netnsOverride: boolean;
}

const requiredBy: Record<string, readonly string[]> = {
  CNI_CONTAINERID: ['ADD', 'DEL', 'CHECK'],
  CNI_NETNS: ['ADD', 'CHECK'],
  CNI_IFNAME: ['ADD', 'DEL', 'CHECK'],
  // The specification makes it optional for STATUS.
  CNI_PATH: ['ADD', 'DEL', 'CHECK', 'GC'],
};

/**
 * True for a valid container ID or network name. Source: specification, "Parameters" and "Configuration
 * format".
 */
export function isValidName(text: string): boolean {
  return /^[a-zA-Z0-9][a-zA-Z0-9_.-]*$/.test(text);
}

/**
 * Says what is wrong with an interface name, or undefined when nothing is.
 * Source: dev_valid_name() of the kernel, which the reference library repeats.
 */
export function ifnameProblem(name: string): string | undefined {
  if (name === '') return 'is empty';
  if (Buffer.byteLength(name) > 15) return 'is longer than the 15 bytes that the kernel allows';
  if (name === '.' || name === '..') return 'is a directory name';
  if (/[/:\s\0]/u.test(name)) return 'contains "/", ":" or white space';
  if (name.includes('%')) return 'contains "%", for which the kernel puts a number of its own';
  return undefined;
}

/**
 * Reads the environment.
 * @throws CniError InvalidEnvironment for the first invalid value, or naming all that are missing.
 */
export function readInvocation(env: NodeJS.ProcessEnv): Invocation {
  const command = env.CNI_COMMAND ?? '';
  const needs = (name: string) => requiredBy[name]?.includes(command) ?? false;
  const missing = Object.keys(requiredBy).filter((name) => needs(name) && !env[name]);

  const containerId = env.CNI_CONTAINERID ?? '';
  if (needs('CNI_CONTAINERID') && containerId !== '' && !isValidName(containerId))
    throw invalid(
      'CNI_CONTAINERID',
      containerId,
      'must begin with a letter or digit and continue with letters, digits, "_", "." or "-"',
    );
  const ifname = env.CNI_IFNAME ?? '';
  const problem = needs('CNI_IFNAME') && ifname !== '' ? ifnameProblem(ifname) : undefined;
  if (problem) throw invalid('CNI_IFNAME', ifname, `${problem}. Give a name such as "eth0"`);
  if (missing.length > 0)
    throw new CniError(
      ErrorCode.InvalidEnvironment,
      `${command} needs ${missing.join(' and ')} in the environment. Set ${missing.length > 1 ? 'them' : 'it'} and call again`,
    );

  return {
    command,
    containerId,
    ifname,
    netns: env.CNI_NETNS ?? '',
    args: env.CNI_ARGS ?? '',
    path: (env.CNI_PATH ?? '').split(':').filter((dir) => dir !== ''),
    netnsOverride: /^(1|true)$/i.test(env.CNI_NETNS_OVERRIDE ?? ''),
  };
}

/**
 * Reads CNI_ARGS, `K=V;K2=V2`. Names are case-sensitive.
 * @param known the names that the plugin understands.
 * @throws Error for a malformed pair, or for an unknown name without IgnoreUnknown=1; the reference plugins
 *   have no error code for it.
 */
export function parseArgs<K extends string>(text: string, known: readonly K[]): Partial<Record<K, string>> {
  const values: Partial<Record<K, string>> = {};
  const unknown: string[] = [];
  let ignoreUnknown = false;
  for (const pair of text === '' ? [] : text.split(';')) {
    const parts = pair.split('=');
    const [name, value] = parts;
    if (parts.length !== 2 || !name || value === undefined)
      throw new Error(`CNI_ARGS has "${pair}", but it must be NAME=VALUE pairs separated by ";"`);
    if (name === 'IgnoreUnknown') ignoreUnknown = /^(1|true)$/i.test(value);
    else if ((known as readonly string[]).includes(name)) values[name as K] = value;
    else unknown.push(name);
  }
  if (unknown.length > 0 && !ignoreUnknown)
    throw new Error(
      `CNI_ARGS has ${unknown.map((name) => `"${name}"`).join(', ')}, which this plugin does not know. ` +
        'Remove it, or add "IgnoreUnknown=1"',
    );
  return values;
}

function invalid(name: string, value: string, why: string): CniError {
  return new CniError(ErrorCode.InvalidEnvironment, `${name} is not valid: it ${why}`, value.slice(0, 300));
}
