/**
 * `cni add|check|del|status NETWORK NETNS`: one network by hand, with cnitool's arguments and environment.
 */

import { statSync } from 'node:fs';
import { basename, dirname, resolve } from 'node:path';
import type { AttachmentId } from '../lib/attachment.ts';
import { sha512 } from '../lib/firewall/sha512.ts';
import { Netns, NetnsGoneError } from '../lib/kernel/netns.ts';
import { isObject } from '../lib/object.ts';
import { CommandError, describeError, ExitCode } from './errors.ts';
import { type CachedAttachment, readCached } from './libcni/cache.ts';
import {
  addNetwork,
  checkNetwork,
  deleteNetwork,
  type Environment,
  type Runtime,
  statusOfNetwork,
} from './libcni/chain.ts';
import type { NetworkList } from './libcni/conflist.ts';
import { findNetwork, findUsedNetwork } from './networks.ts';
import { environment, environmentHelp } from './settings.ts';
import type { Subcommand } from './subcommand.ts';
import { print, warn } from './terminal.ts';

interface NetworkArguments {
  network: string;
  netns: string;
  trace: boolean;
}

function networkCommand(
  name: string,
  run: (list: NetworkList, runtime: Runtime, environment: Environment) => Promise<void>,
  { find = findNetwork, needsNetns = true } = {},
): (describe: string) => Subcommand<NetworkArguments> {
  const where = needsNetns ? ' /run/netns/web' : '';
  return (describe) => ({
    builder: (yargs) =>
      yargs
        .positional('network', { type: 'string', demandOption: true, describe: 'Name of the network' })
        .positional('netns', {
          type: 'string',
          default: '',
          defaultDescription: '',
          describe: needsNetns
            ? "Path of the container's network namespace"
            : 'Accepted for compatibility with cnitool, and ignored',
        })
        .option('trace', {
          type: 'boolean',
          default: false,
          describe: "Show each plugin's time, input and result",
        })
        .example(`$0 ${name} podnet${where}`, describe)
        .example(
          `CNI_PATH=./dist/bin NETCONFPATH=./conf $0 ${name} podnet${where} --trace`,
          'Watch the plugins do it',
        )
        .epilogue(environmentHelp),
    handler: async ({ network, netns, trace }) => {
      const path = resolve(netns);
      await run(find(network), runtimeFor(path), environment(trace));
    },
  });
}

export const add = networkCommand('add', async (list, runtime, environment) => {
  requireNetns(runtime.netns);
  refuseSecondAdd(list, runtime, environment);
  let result: unknown;
  try {
    result = await addNetwork(list, runtime, environment);
  } catch (error) {
    await rollBack(() => deleteNetwork(list, runtime, environment, { goesOn: true }));
    throw error;
  }
  print(JSON.stringify(result, null, 4));
});

export const check = networkCommand(
  'check',
  async (list, runtime, environment) => {
    requireNetns(runtime.netns);
    const record = readCached(environment.cacheDir, { ...runtime, network: list.name });
    await checkNetwork(list, asRecorded(runtime, record), environment, record);
  },
  { find: findUsedNetwork },
);

export const del = networkCommand(
  'del',
  async (...call) => {
    refuseName(...call);
    await deleteNetwork(...call);
  },
  { find: findUsedNetwork },
);

export const status = networkCommand('status', (list, _, environment) => statusOfNetwork(list, environment), {
  needsNetns: false,
});

/** The attachment that cnitool's arguments and environment specify. @param netns absolute path. */
function runtimeFor(netns: string): Runtime {
  return {
    containerId: `cnitool-${sha512(netns).slice(0, 20)}`,
    netns,
    ifname: process.env.CNI_IFNAME ?? 'eth0',
    args: readArgs(process.env.CNI_ARGS ?? ''),
    capabilityArgs: readCapabilityArgs(process.env.CAP_ARGS ?? ''),
  };
}

/** Takes from the record what the environment does not say: the plugins check only what they are told of. */
function asRecorded(runtime: Runtime, record: CachedAttachment | undefined): Runtime {
  const { CNI_ARGS, CAP_ARGS } = process.env;
  return {
    ...runtime,
    ...(record && CNI_ARGS === undefined && { args: record.args }),
    ...(record && CAP_ARGS === undefined && { capabilityArgs: record.capabilityArgs }),
  };
}

/** Reads CNI_ARGS as an operator gives them. @throws CommandError */
export function readArgs(text: string): [string, string][] {
  if (text === '') return [];
  return text.split(';').map((pair) => {
    const [key, value, ...more] = pair.split('=');
    if (!key || !value || more.length > 0)
      throw new CommandError(`CNI_ARGS has "${pair}", but it must be NAME=VALUE pairs separated by ";"`, {
        exitCode: ExitCode.Usage,
      });
    return [key, value];
  });
}

/** Reads CAP_ARGS as an operator gives them. @throws CommandError */
export function readCapabilityArgs(text: string): Record<string, unknown> {
  if (text === '') return {};
  let value: unknown;
  try {
    value = JSON.parse(text);
  } catch (cause) {
    throw new CommandError(
      `CAP_ARGS is "${text}", but it must be JSON, such as {"portMappings": [{"hostPort": 8080, "containerPort": 80}]}`,
      { exitCode: ExitCode.Usage, cause },
    );
  }
  if (isObject(value)) return value;
  throw new CommandError('CAP_ARGS must be a JSON object with capabilities as keys', {
    exitCode: ExitCode.Usage,
  });
}

/** @throws CommandError when a path is not a network namespace. */
export function requireNetns(path: string): void {
  try {
    Netns.open(path).close();
  } catch (error) {
    if (!(error instanceof NetnsGoneError)) throw error;
    const named = sameNamed(path);
    const hint = named
      ? `Did you mean "${named}"?`
      : 'Give the path of one that exists, such as one created with "ip netns add"';
    throw new CommandError(`"${path}" is not a network namespace. ${hint}`);
  }
}

/** A container that is gone can be detached, but a bare name probably means a namespace that still exists. */
function refuseName(list: NetworkList, { netns, ...runtime }: Runtime, { cacheDir }: Environment): void {
  if (dirname(netns) !== process.cwd() || !sameNamed(netns)) return;
  if (!hasRecord(cacheDir, { ...runtime, network: list.name })) requireNetns(netns);
}

/** The namespace of "ip netns" that is named like the last part of another path. */
function sameNamed(path: string): string | undefined {
  const named = `/run/netns/${basename(path)}`;
  return path !== named && statSync(named, { throwIfNoEntry: false }) ? named : undefined;
}

function hasRecord(cacheDir: string, id: AttachmentId): boolean {
  try {
    return readCached(cacheDir, id) !== undefined;
  } catch {
    return true;
  }
}

/** Refuses a second ADD: rolling it back after a failure would remove what the first one made. */
function refuseSecondAdd(list: NetworkList, runtime: Runtime, { cacheDir }: Environment): void {
  if (!readCached(cacheDir, { ...runtime, network: list.name })) return;
  throw new CommandError(
    `"${runtime.netns}" is already attached to network "${list.name}" as "${runtime.ifname}". ` +
      `Detach it with "cni del ${list.name} ${runtime.netns}" first, or set CNI_IFNAME to another name`,
  );
}

/**
 * Undoes what the plugins before the failed one did, as runtimes do after a failed ADD.
 * @param detach runs their DEL; a failure is only a warning.
 */
export async function rollBack(detach: () => Promise<void>): Promise<void> {
  try {
    await detach();
  } catch (error) {
    warn(`Something of the failed ADD may be left: ${describeError(error)}`);
  }
}
