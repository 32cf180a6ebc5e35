/** The networks of a pod, each a chain of plugins that are run as libcni runs them for a runtime. */

import type { AttachmentId } from '../attachment.ts';
import type { Call } from '../cni/call.ts';
import { type DelegateOptions, delegate, ElsewhereError, LeftoverError } from '../cni/delegate.ts';
import { emptyResult, type Result } from '../cni/result.ts';
import { getKey } from '../cni/schema.ts';
import { runAll } from '../cni/steps.ts';
import { atLeast } from '../cni/version.ts';
import { CniError, ErrorCode } from '../errors.ts';
import type { Address } from '../ip.ts';
import type { NetworkList } from './conflist.ts';
import { pluginConfig } from './plugin-config.ts';

/** A network that a pod is attached to, and how. */
export interface Delegate {
  readonly network: NetworkList;
  /** Its name in the pod's status: the network's, or that of its definition with the namespace. */
  readonly label: string;
  readonly ifname: string;
  /** CNI_ARGS. */
  readonly args: string;
  /** Values by capability. */
  readonly capabilityArgs: Readonly<Record<string, unknown>>;
  /** Gateways of the default routes that were asked for; undefined when none were. */
  readonly defaultRoute: readonly Address[] | undefined;
  /** What ADD returned, with later changes to its default routes; undefined before ADD. */
  readonly result: Result | undefined;
  /** Whether ADD has failed in a third-party plugin: there may or may not be something to undo. */
  readonly isRefused?: boolean;
  /** How many of its plugins had accepted it until one refused it. There may be something to undo of them. */
  readonly accepted?: number | undefined;
  /** What is known about the device that its plugins work on, for the pod's status. */
  readonly deviceInfo?: object;
}

/** A delegate that has been added. */
export type AddedDelegate = Delegate & { readonly result: Result };

/** A container, for calls that are not about one themselves, such as GC. */
export type Container = Pick<AttachmentId, 'containerId'> & { readonly netns: string };

/**
 * Attaches the pod to a network. That is undone if the call is rolled back.
 * @throws CniError that names the network; ElsewhereError when a third-party plugin has failed, LeftoverError
 *   when one within this process has failed and left something.
 */
export async function addDelegate(call: Call, one: Delegate): Promise<Result> {
  const { network } = one;
  let result: Result | undefined;
  await inNetwork(one, async () => {
    for (const plugin of network.plugins) {
      const stdin = pluginConfig(network, plugin, one, result);
      result = await delegate(call, plugin.type, optionsFor(call, one, 'ADD', stdin));
    }
  });
  return result ?? emptyResult();
}

/** @throws CniError that names the network of the first plugin that finds fault. */
export async function checkDelegate(call: Call, one: Delegate): Promise<void> {
  const { network, result } = one;
  if (network.disableCheck || !atLeast(network.cniVersion, '0.4.0')) return;
  await inNetwork(one, async () => {
    for (const plugin of network.plugins) {
      const stdin = pluginConfig(network, plugin, one, result);
      await delegate(call, plugin.type, optionsFor(call, one, 'CHECK', stdin));
    }
  });
}

/**
 * Detaches a pod from a network. If ADD failed in a plugin, DEL may fail there for the same reason for ever:
 * that is only a warning.
 * @param container the pod's, if the call is not about one.
 * @throws CniError that names the network, after every plugin has been run.
 */
export async function deleteDelegate(call: Call, one: Delegate, container?: Container): Promise<void> {
  const { network, result, isRefused, accepted = 0 } = one;
  const known = result && atLeast(network.cniVersion, '0.4.0') ? result : undefined;
  const steps = network.plugins.map((plugin, i) => async () => {
    const options = optionsFor(call, one, 'DEL', pluginConfig(network, plugin, one, known));
    const target = { ...options.target, ...container };
    try {
      await inNetwork(one, async () => void (await delegate(call, plugin.type, { ...options, target })));
    } catch (error) {
      if (!isRefused || i < accepted) throw error;
      call.warn(`${(error as Error).message}. As ADD was refused there, nothing need be left; going on`);
    }
  });
  await runAll(call, ...steps.toReversed());
}

/** Asks the plugins of a network whether they can serve ADD. @throws CniError that names the network. */
export async function statusOfNetwork(call: Call, network: NetworkList): Promise<void> {
  if (!atLeast(network.cniVersion, '1.1.0')) return;
  await inNetwork({ network }, async () => {
    for (const plugin of network.plugins)
      await delegate(call, plugin.type, {
        command: 'STATUS',
        stdin: pluginConfig(network, plugin),
        target: { path: pathOf(call) },
      });
  });
}

/**
 * Has the plugins of a network collect garbage.
 * @param valid the network's attachments to keep.
 * @throws CniError that names the network, after every plugin has been run.
 */
export async function collectNetwork(
  call: Call,
  network: NetworkList,
  valid: readonly AttachmentId[],
): Promise<void> {
  if (network.disableGC || !atLeast(network.cniVersion, '1.1.0')) return;
  const keep = valid.map(({ containerId, ifname }) => ({ containerID: containerId, ifname }));
  const keys = { 'cni.dev/valid-attachments': keep, 'cni.dev/attachments': keep };
  const steps = network.plugins.map(({ config, ...plugin }) => () => {
    const stdin = pluginConfig(network, { ...plugin, config: { ...config, ...keys } });
    return delegate(call, plugin.type, { command: 'GC', stdin, target: { path: pathOf(call) } });
  });
  await inNetwork({ network }, () => runAll(call, ...steps));
}

/** A delegate's configuration with what the pod passes to its plugins. */
export function withCniArgs(network: NetworkList, cniArgs: Readonly<Record<string, unknown>>): NetworkList {
  if (Object.keys(cniArgs).length === 0) return network;
  const plugins = network.plugins.map((plugin) => {
    const { args } = plugin.config;
    const given = args as { cni?: object } | null | undefined;
    return {
      ...plugin,
      config: { ...plugin.config, args: { ...given, cni: { ...given?.cni, ...cniArgs } } },
    };
  });
  return { ...network, plugins };
}

/**
 * Where plugins are looked up: as in Multus, first in the "binDir" of the configuration, then in CNI_PATH.
 */
function pathOf({ config, context }: Call): readonly string[] {
  const { path } = context.invocation;
  const binDir = getKey(config, 'binDir');
  return typeof binDir === 'string' && binDir !== '' ? [binDir, ...path] : path;
}

function optionsFor(
  call: Call,
  { network, ifname, args }: Delegate,
  command: 'ADD' | 'CHECK' | 'DEL',
  stdin: string,
): DelegateOptions {
  return { command, stdin, version: network.cniVersion, target: { ifname, args, path: pathOf(call) } };
}

/** Makes an error say which network of the pod it is about. */
async function inNetwork(
  { network, ifname }: Pick<Delegate, 'network'> & { ifname?: string },
  work: () => Promise<void>,
): Promise<void> {
  try {
    await work();
  } catch (error) {
    const { code = ErrorCode.Internal, details } = error as Partial<CniError>;
    const where = `Network "${network.name}"${ifname ? `, interface "${ifname}"` : ''}`;
    const Kind = [ElsewhereError, LeftoverError].find((kind) => error instanceof kind) ?? CniError;
    throw new Kind(
      typeof code === 'number' ? code : ErrorCode.Internal,
      `${where}: ${(error as Error).message}`,
      details,
    );
  }
}
