/**
 * Calling a plugin's executable as a runtime does: environment, standard input, standard output, exit code.
 */

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { binDir, type Namespace, type Pod } from './host.ts';
import type { Output } from './run.ts';

/**
 * Where the executables are: this project's, and Debian's package of the reference plugins unless CNI_REFERENCE
 * names another directory.
 */
export const suites = {
  ours: binDir,
  reference: process.env.CNI_REFERENCE ?? '/usr/lib/cni',
} as const;
export type Suite = keyof typeof suites;

/** The names in a directory of plugins, without hidden directories. */
export function pluginNames(directory: string): string[] {
  return readdirSync(directory).filter((name) => !name.startsWith('.'));
}

export type Verb = 'ADD' | 'DEL' | 'CHECK' | 'STATUS' | 'GC' | 'VERSION';

/** A result as printed. Which keys there are depends on its cniVersion. */
export interface PrintedResult {
  cniVersion: string;
  interfaces?: { name: string; mac?: string; mtu?: number; sandbox?: string }[];
  ips?: { version?: string; address: string; gateway?: string; interface?: number }[];
  routes?: { dst: string; gw?: string; mtu?: number; priority?: number; table?: number; scope?: number }[];
  dns?: { nameservers?: string[]; domain?: string; search?: string[]; options?: string[] };
  ip4?: { ip: string; gateway?: string; routes?: { dst: string; gw?: string }[] };
  ip6?: { ip: string; gateway?: string; routes?: { dst: string; gw?: string }[] };
}

/** An error as a plugin prints it. */
export interface PrintedError {
  code: number;
  msg: string;
  details?: string;
}

/** How a plugin is called. */
export interface PluginCall {
  /** Sets containerId and netns unless these are given. */
  pod?: Pod;
  containerId?: string;
  /** CNI_NETNS; undefined leaves it out of the environment. */
  netns?: string | undefined;
  /** CNI_IFNAME, `eth0` when left out. */
  ifname?: string;
  /** CNI_ARGS. */
  args?: string;
  /** Standard input: an object is written as JSON, a string as it is. */
  config?: object | string;
  suite?: Suite;
  /** Directories for CNI_PATH; the suite's own when left out. */
  path?: readonly string[];
  /** Overrides anything else; a variable that is undefined is left out. */
  env?: NodeJS.ProcessEnv;
  /** Whether what it prints cannot be written, so that the result gets lost. */
  isUnheard?: boolean;
  /** Milliseconds until it is killed; the default of run.ts when left out. */
  timeout?: number;
}

/** How a call ended. Exactly one of `result` and `error` is there after ADD. */
export interface Outcome extends Output {
  readonly result: PrintedResult | undefined;
  readonly error: PrintedError | undefined;
}

/** The environment of an ADD, for tests that start an executable of this suite in their own way. */
export function addEnvironment({ containerId, netns }: Pod): NodeJS.ProcessEnv {
  return {
    CNI_COMMAND: 'ADD',
    CNI_CONTAINERID: containerId,
    CNI_NETNS: netns,
    CNI_IFNAME: 'eth0',
    CNI_PATH: suites.ours,
  };
}

/**
 * Calls a plugin in a host.
 * @param name of the executable.
 * @param command CNI_COMMAND.
 */
export async function runPlugin(
  host: Namespace,
  name: string,
  command: Verb | string,
  call: PluginCall = {},
): Promise<Outcome> {
  const {
    pod,
    ifname = 'eth0',
    args,
    config = '',
    suite = 'ours',
    path = [suites[suite]],
    env,
    isUnheard = false,
    timeout,
  } = call;
  const file = join(suites[suite], name);
  const output = await host.tryRun(isUnheard ? ['sh', '-c', `exec ${file} >/dev/full`] : [file], {
    stdin: typeof config === 'string' ? config : JSON.stringify(config),
    env: {
      CNI_COMMAND: command,
      CNI_CONTAINERID: call.containerId ?? pod?.containerId,
      CNI_NETNS: 'netns' in call ? call.netns : pod?.netns,
      CNI_IFNAME: ifname,
      CNI_PATH: path.join(':'),
      ...(args !== undefined && { CNI_ARGS: args }),
      ...env,
    },
    ...(timeout !== undefined && { timeout }),
  });
  return { ...output, ...parse(output) };
}

/** @returns the outcome, if it is a success. @throws Error with all that the plugin printed otherwise. */
export function succeeded<O extends Output>(outcome: O): O {
  if (outcome.exit === 0) return outcome;
  throw new Error(`${outcome.argv.at(-1)}: exit ${outcome.exit}\n${outcome.stdout}\n${outcome.stderr}`);
}

/** Servers that a machine may be too busy to have answer in time. A lock that is held too long is no such thing. */
const remote = /etcd|Kubernetes API/;

/**
 * Makes a call as runtimes do: again when it is told to try again later (code 11), as a server does not
 * answer, up to five times in all.
 * @param before what a runtime does before each further call.
 */
export async function withPatience(
  call: () => Promise<Outcome>,
  before: () => Promise<unknown> = async () => {},
): Promise<Outcome> {
  let outcome = await call();
  const isLater = ({ error }: Outcome) => error?.code === 11 && remote.test(error.msg);
  for (let left = 4; left > 0 && isLater(outcome); left--) {
    await before();
    outcome = await call();
  }
  return outcome;
}

function parse({ exit, stdout }: Output): Pick<Outcome, 'result' | 'error'> {
  if (stdout === '') return { result: undefined, error: undefined };
  const value: unknown = JSON.parse(stdout);
  return exit === 0
    ? { result: value as PrintedResult, error: undefined }
    : { result: undefined, error: value as PrintedError };
}
