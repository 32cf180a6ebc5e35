/** Turns the networks that are chosen for a pod into what their plugins are run with. */

import type { Call } from '../cni/call.ts';
import type { NetConf } from '../cni/config.ts';
import { isObject } from '../object.ts';
import { ConfigError, findNetwork, type NetworkList, networkFrom } from './conflist.ts';
import { type Delegate, withCniArgs } from './delegates.ts';
import { type Devices, withDevice } from './devices.ts';
import { firstArgs, furtherArgs, withArgs } from './pod.ts';
import type { Selection } from './selection.ts';

/** A network that is chosen for a pod. */
export interface Choice {
  readonly network: NetworkList;
  /** Its name in the pod's status; the network's name when left out. */
  readonly label?: string;
  /** How the pod wants to be attached; undefined for a network that it did not ask for. */
  readonly selection?: Selection;
  /** A resource of a device plugin: the network's plugins get one of its devices. */
  readonly resourceName?: string | undefined;
}

/**
 * Names the interfaces of a pod.
 * @param requested the names that the pod asks for, by network; "" for no name.
 * @param own the name that the runtime asks for.
 * @returns a name for each network. The network with the runtime's name is the pod's default one; if none has
 *   it, the first is.
 */
export type NameInterfaces = (requested: readonly string[], own: string) => readonly string[];

/**
 * What the plugins of the chosen networks are run with. The pod's default network comes first: it gets the
 * interface, the capabilities and the arguments of the call. What the pod asks for takes precedence over
 * these.
 * @param devices of the pod, if they are known.
 */
export function asDelegates(
  call: Call,
  choices: readonly Choice[],
  nameInterfaces: NameInterfaces,
  devices?: Devices,
): Delegate[] {
  if (choices.length === 0) return [];
  const names = nameInterfaces(
    choices.map(({ selection }) => selection?.ifname ?? ''),
    call.ifname,
  );
  const first = Math.max(0, names.indexOf(call.ifname));
  const delegates = choices.map((one, i) => asDelegate(call, one, names[i]!, i === first, devices));
  return [delegates[first]!, ...delegates.toSpliced(first, 1)];
}

function asDelegate(
  call: Call,
  { network, label = network.name, selection, resourceName }: Choice,
  ifname: string,
  isFirst: boolean,
  devices: Devices | undefined,
): Delegate {
  const { args } = call.context.invocation;
  const { runtimeConfig } = call.config;
  const wanted: Partial<Selection> = selection ?? {};
  const given = isFirst ? firstArgs(args) : furtherArgs(args);
  const own = inArgs(network, wanted.args ?? {});
  const device = resourceName ? devices?.next(resourceName) : undefined;
  return {
    network: withCniArgs(device ? withDevice(network, device) : network, wanted.cniArgs ?? {}),
    label,
    ifname,
    args: Object.keys(own).length === 0 ? given : withArgs(given, own),
    capabilityArgs: {
      ...(isFirst && isObject(runtimeConfig) && runtimeConfig),
      ...wanted.capabilityArgs,
      ...(device && { deviceID: device.id }),
    },
    defaultRoute: wanted.defaultRoute,
    result: undefined,
    ...(device?.info && { deviceInfo: device.info }),
  };
}

/**
 * What a pod asks for, as CNI_ARGS, as in Multus: even what a plugin also gets by a capability, as others in
 * the chain may read nothing else. "IP" has room for one address: several are passed by the capability alone.
 */
function inArgs(
  { plugins }: NetworkList,
  args: Readonly<Record<string, string>>,
): Readonly<Record<string, string>> {
  const { IP, ...others } = args;
  const isSeveral = IP?.includes(',') && plugins.some(({ capabilities }) => capabilities.includes('ips'));
  return isSeveral ? others : args;
}

/**
 * Finds a network by name.
 * @param directories in the order in which they are searched.
 * @param isWanted tells whether a network is the one, if its name alone does not decide.
 * @throws ConfigError when there is none.
 */
export function networkNamed(
  directories: readonly string[],
  name: string,
  isWanted: (network: NetworkList) => boolean = (network) => network.name === name,
): NetworkList {
  const unusable: string[] = [];
  for (const directory of directories) {
    const skipped = (file: string, error: Error) => unusable.push(`${file} (${error.message})`);
    try {
      const network = findNetwork(directory, isWanted, skipped);
      if (network) return network;
    } catch (error) {
      unusable.push((error as Error).message);
    }
  }
  const others = unusable.length > 0 ? `. Not usable: ${unusable.join('; ')}` : '';
  throw new ConfigError(
    '',
    `No configuration in ${directories.map((one) => `"${one}"`).join(' or ')} has the network "${name}". Put one there, or correct the name${others}`,
  );
}

/**
 * A network that is defined within a configuration.
 * @param path where, for errors. @param call whose name and version are used if it has none.
 * @throws ConfigError
 */
export function inlineNetwork(value: unknown, path: string, { config }: Pick<Call, 'config'>): NetworkList {
  const whole = wholeInlineNetwork(value, config);
  try {
    return networkFrom(whole, Buffer.from(JSON.stringify(whole)), '');
  } catch (error) {
    throw new ConfigError(path, `"${path}" cannot be used: ${(error as Error).message}`);
  }
}

/** A network that is defined within a configuration, with the latter's name and version if it has none. */
export function wholeInlineNetwork(value: unknown, { name, cniVersion }: NetConf): unknown {
  return isObject(value) ? { name, cniVersion, ...value } : value;
}
