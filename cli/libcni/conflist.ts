/** Network configurations on disk, with errors that help whoever edits them. */

import { readdirSync } from 'node:fs';
import { join } from 'node:path';
import { atLeast } from '../../lib/cni/version.ts';
import {
  ConfigError,
  findNetwork,
  type NetworkList,
  networkFrom,
  type PluginEntry,
  readConfigFile,
} from '../../lib/networks/conflist.ts';
import { isObject } from '../../lib/object.ts';
import { excerptOf, type JsonNode, JsonSyntaxError, parseJson, positionOf } from '../json.ts';
import type { CachedAttachment } from './cache.ts';

export {
  ConfigError,
  configFiles,
  type NetworkList,
  networkFiles,
  networkFrom,
  type PluginEntry,
  readConfigFile,
} from '../../lib/networks/conflist.ts';

/**
 * Finds the network of that name in a directory.
 * @param skipped is told of every file that could not be used.
 * @throws ConfigError when no file has that network.
 */
export function loadNetwork(
  directory: string,
  name: string,
  skipped: (file: string, error: Error) => void,
): NetworkList {
  const network = findNetwork(directory, (list) => list.name === name, skipped, readNetworkFile);
  if (network) return network;
  throw new ConfigError(
    '',
    `No configuration in "${directory}" has the network "${name}". See "cni validate ${directory}" for those it has, ` +
      'or set NETCONFPATH to another directory',
  );
}

/**
 * Finds the network of that name in the subdirectories, where nerdctl keeps those of its namespaces.
 * @returns undefined when there is none. Unusable files are skipped: they may not be networks at all.
 */
export function findNetworkBelow(directory: string, name: string): NetworkList | undefined {
  for (const below of directoriesBelow(directory)) {
    const network = findNetwork(
      below,
      (list) => list.name === name,
      () => {},
      readNetworkFile,
    );
    if (network) return network;
  }
  return undefined;
}

function directoriesBelow(directory: string): string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter((entry) => entry.isDirectory())
      .map((entry) => join(directory, entry.name))
      .sort();
  } catch {
    return []; // Whoever reads the files in it reports this.
  }
}

/** Reads a conflist, or a single configuration as a conflist of one. @throws ConfigError */
export function readNetworkFile(file: string): NetworkList {
  const { text, node } = readJsonFile(file);
  return networkFrom(node.value, Buffer.from(text), file, (beside) => readJsonFile(beside).node.value);
}

/** Reads a JSON file. @throws ConfigError with line and column when it is not valid. */
function readJsonFile(file: string): { text: string; node: JsonNode } {
  let text: string;
  try {
    text = readConfigFile(file);
  } catch (error) {
    throw new ConfigError('', `Cannot read "${file}": ${(error as Error).message}`);
  }
  try {
    return { text, node: parseJson(text) };
  } catch (error) {
    if (!(error instanceof JsonSyntaxError)) throw error;
    const { line, column } = positionOf(text, error.offset);
    throw new ConfigError(
      '',
      `"${file}" is not valid JSON, line ${line}, column ${column}: ${error.message}\n${excerptOf(text, error.offset)}`,
    );
  }
}

/**
 * The network that an attachment was made with, even if no file has it any longer.
 * @returns undefined when the record has no usable configuration, or that of another network.
 */
export function networkFromCache({ config, network }: CachedAttachment): NetworkList | undefined {
  try {
    const list = networkFrom(JSON.parse(config.toString()), config, '');
    return list.name === network ? list : undefined;
  } catch {
    return undefined;
  }
}

/** Whether a network gives a container nothing but "lo"; containerd and CRI-O each have one of their own. */
export function isLoopback({ plugins }: NetworkList): boolean {
  return plugins.every(({ type }) => type === 'loopback');
}

/** A plugin's configuration as the plugin gets it, less what the runtime adds. */
export function wholeConfig(
  { config }: Pick<PluginEntry, 'config'>,
  { name, cniVersion }: Pick<NetworkList, 'name' | 'cniVersion'>,
): Readonly<Record<string, unknown>> {
  return { ...config, name, cniVersion: cniVersion || '0.1.0' };
}

/** The type of the IPAM plugin in a plugin's configuration, if there is one. */
export function ipamTypeOf(config: PluginEntry['config']): string | undefined {
  const { ipam } = config;
  return isObject(ipam) && typeof ipam.type === 'string' && ipam.type !== '' ? ipam.type : undefined;
}

/** Whether the plugins of a network can search for what is left of attachments. */
export function hasGarbageCollection({ cniVersion }: NetworkList): boolean {
  return atLeast(cniVersion || '0.1.0', '1.1.0');
}
