/**
 * Network configurations on disk, read as libcni reads them.
 * Source: CNI specification 1.1.0, section 1; the file names and precedence are libcni's.
 */

import { readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { isValidName } from '../../lib/cni/invocation.ts';
import { isObject } from '../../lib/cni/schema.ts';
import { compareVersions, newestVersion } from '../../lib/cni/version.ts';
import { readRegularFile } from '../../lib/file.ts';
import { excerptOf, type JsonNode, JsonSyntaxError, parseJson, positionOf } from '../json.ts';
import type { CachedAttachment } from './cache.ts';

/** One plugin of a network. */
export interface PluginEntry {
  readonly type: string;
  /** Capabilities whose arguments the plugin wants. */
  readonly capabilities: readonly string[];
  readonly config: Readonly<Record<string, unknown>>;
}

/** A network: its plugins in the order that ADD runs them. */
export interface NetworkList {
  readonly name: string;
  readonly cniVersion: string;
  readonly disableCheck: boolean;
  readonly disableGC: boolean;
  readonly plugins: readonly PluginEntry[];
  /** The configuration as the result cache keeps it. */
  readonly bytes: Buffer;
  readonly file: string;
}

/** A configuration that cannot be used. */
export class ConfigError extends Error {
  /** Where in the file, as a path such as `plugins[0].type`. */
  readonly path: string;

  constructor(path: string, message: string) {
    super(message);
    this.name = 'ConfigError';
    this.path = path;
  }
}

/**
 * Finds a network in a directory: conflists first, then single configurations, each by file name.
 * @param skipped is told of every file that could not be used.
 * @throws ConfigError when no file has that network.
 */
export function loadNetwork(
  directory: string,
  name: string,
  skipped: (file: string, error: Error) => void,
): NetworkList {
  for (const file of networkFiles(directory)) {
    try {
      const list = readNetworkFile(file);
      if (list.name === name) return list;
    } catch (error) {
      skipped(file, error as Error);
    }
  }
  throw new ConfigError(
    '',
    `No configuration in "${directory}" has the network "${name}". See "cni validate ${directory}" for those it has, ` +
      'or set NETCONFPATH to another directory',
  );
}

/**
 * The configuration files of a directory in the order that libcni searches them.
 * @throws ConfigError when the directory cannot be read.
 */
export function networkFiles(directory: string): string[] {
  const lists = configFiles(directory, ['.conflist']);
  return [...lists, ...configFiles(directory, ['.conf', '.json'])];
}

/**
 * Files of a directory with one of the given extensions, sorted by name.
 * @throws ConfigError when the directory cannot be read.
 */
export function configFiles(directory: string, extensions: readonly string[]): string[] {
  try {
    return readdirSync(directory, { withFileTypes: true })
      .filter(
        (entry) => !entry.isDirectory() && extensions.some((extension) => entry.name.endsWith(extension)),
      )
      .map((entry) => join(directory, entry.name))
      .sort();
  } catch (error) {
    throw new ConfigError(
      '',
      `Cannot read the directory "${directory}": ${(error as Error).message}. Create it, or give another one`,
    );
  }
}

/** Reads a conflist, or a single configuration as a conflist of one. @throws ConfigError */
export function readNetworkFile(file: string): NetworkList {
  const { text, node } = readJsonFile(file);
  return networkFrom(node.value, Buffer.from(text), file);
}

/**
 * Reads a file that an operator has put down, or linked to. It never waits, and never reads without end.
 * @throws the error of open(2) or read(2), or an Error for what is not a regular file or too large.
 */
export function readConfigFile(file: string): string {
  return readRegularFile(file, { followLink: true, limit: 16 * 1024 * 1024 });
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
 * Whether libcni reads a file as a list of plugins or as a single one, which its name says.
 * @returns undefined for what is no file of a known ending: there, what it holds tells.
 */
function kindOf(file: string): 'list' | 'single' | undefined {
  if (file.endsWith('.conflist')) return 'list';
  return /\.(conf|json)$/.test(file) ? 'single' : undefined;
}

/**
 * Turns parsed JSON into a network.
 * @param value of the whole file.
 * @param bytes of the file, for the result cache.
 * @param file "" for a configuration that is in none: nothing is beside it.
 * @throws ConfigError
 */
export function networkFrom(value: unknown, bytes: Buffer, file: string): NetworkList {
  if (!isObject(value)) throw new ConfigError('', 'A network configuration must be a JSON object');
  const holdsPlugin = value.type !== undefined && value.plugins === undefined;
  const kind = kindOf(file) ?? (holdsPlugin ? 'single' : 'list');
  if (kind === 'single' && value.type === undefined && value.plugins !== undefined)
    throw new ConfigError(
      'plugins',
      `A list of plugins must be in a file that ends in ".conflist", or no runtime reads it. Rename "${basename(file)}" to "${basename(file).replace(/\.[^.]*$/, '')}.conflist"`,
    );
  const name = readString(value, 'name');
  if (name === undefined) throw new ConfigError('', 'The network has no "name". Give it one');
  if (!isValidName(name))
    throw new ConfigError(
      'name',
      `"name" is "${name.slice(0, 80)}", but it must begin with a letter or digit and go on with letters, digits, "_", "." or "-"`,
    );
  const cniVersion = readVersion(value);
  if (kind === 'single')
    return {
      name,
      cniVersion,
      disableCheck: false,
      disableGC: false,
      plugins: [readPlugin(value, '')],
      bytes: Buffer.from(JSON.stringify({ name, cniVersion, plugins: [value] })),
      file,
    };
  const onlyInlined = readFlag(value, 'loadOnlyInlinedPlugins');
  const inlined = readPlugins(value, onlyInlined);
  const plugins = onlyInlined || file === '' ? inlined : [...inlined, ...filesBeside(file, name)];
  if (plugins.length === 0 && holdsPlugin)
    throw new ConfigError(
      'type',
      `This is a single plugin, but runtimes look for a "plugins" list in a file that ends in ".conflist". Put it into one, or rename "${basename(file)}" to "${basename(file, '.conflist')}.conf"`,
    );
  if (plugins.length === 0)
    throw new ConfigError(
      'plugins',
      `The network has no plugins. List them in "plugins", or as files "${join(dirname(file), name)}/*.conf"`,
    );
  return {
    name,
    cniVersion,
    disableCheck: readFlag(value, 'disableCheck'),
    disableGC: readFlag(value, 'disableGC'),
    plugins,
    bytes,
    file,
  };
}

/**
 * The network that an attachment was made with, for when no file has it any longer.
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

function readPlugins(value: Record<string, unknown>, onlyInlined: boolean): PluginEntry[] {
  const { plugins } = value;
  if (plugins === undefined) {
    if (onlyInlined)
      throw new ConfigError(
        'loadOnlyInlinedPlugins',
        '"loadOnlyInlinedPlugins" is true, but there is no "plugins" list. Add one',
      );
    return [];
  }
  if (!Array.isArray(plugins))
    throw new ConfigError('plugins', '"plugins" must be a list of plugin configurations');
  if (plugins.length === 0) throw new ConfigError('plugins', '"plugins" is empty. List at least one plugin');
  return plugins.map((plugin, i) => readPlugin(plugin, `plugins[${i}]`));
}

/** Plugins may also stand in files of their own, in a directory named after the network. */
function filesBeside(file: string, name: string): PluginEntry[] {
  let files: string[];
  try {
    files = configFiles(join(dirname(file), name), ['.conf']);
  } catch {
    return []; // There is no such directory.
  }
  return files.map((path) => readPlugin(readJsonFile(path).node.value, ''));
}

function readPlugin(value: unknown, path: string): PluginEntry {
  if (!isObject(value))
    throw new ConfigError(path, `"${path}" must be a plugin configuration, a JSON object`);
  const type = readString(value, 'type', path);
  if (!type)
    throw new ConfigError(
      path,
      `${path ? `"${path}"` : 'The plugin'} has no "type". Set it to the name of a plugin`,
    );
  const { capabilities = {} } = value;
  const wanted = isObject(capabilities) ? Object.entries(capabilities) : [];
  return { type, capabilities: wanted.filter(([, on]) => on === true).map(([key]) => key), config: value };
}

/** A plugin's configuration as the plugin gets it, less what the runtime adds. */
export function wholeConfig(
  { config }: Pick<PluginEntry, 'config'>,
  { name, cniVersion }: Pick<NetworkList, 'name' | 'cniVersion'>,
): Readonly<Record<string, unknown>> {
  return { ...config, name, cniVersion: cniVersion || '0.1.0' };
}

/** The highest of the versions that the network offers and this suite speaks. */
function readVersion(value: Record<string, unknown>): string {
  const version = readString(value, 'cniVersion') ?? '';
  const { cniVersions = [] } = value;
  if (!Array.isArray(cniVersions) || !cniVersions.every((each) => typeof each === 'string'))
    throw new ConfigError(
      'cniVersions',
      '"cniVersions" must be a list of versions such as ["0.4.0", "1.1.0"]',
    );
  try {
    return [version, ...cniVersions.filter((each) => compareVersions(each, newestVersion) <= 0)].reduce(
      (a, b) => (compareVersions(a, b) >= 0 ? a : b),
    );
  } catch (error) {
    throw new ConfigError('cniVersion', (error as Error).message);
  }
}

function readString(value: Record<string, unknown>, key: string, path = ''): string | undefined {
  const found = value[key];
  if (found === undefined || found === null) return undefined;
  if (typeof found === 'string') return found;
  throw new ConfigError(
    path ? `${path}.${key}` : key,
    `"${key}" is ${JSON.stringify(found)}, but it must be a string`,
  );
}

function readFlag(value: Record<string, unknown>, key: string): boolean {
  const found = value[key];
  if (found === undefined) return false;
  const flag = typeof found === 'string' ? found.toLowerCase() : found;
  if (flag === true || flag === 'true') return true;
  if (flag === false || flag === 'false') return false;
  throw new ConfigError(key, `"${key}" is ${JSON.stringify(found)}, but it must be true or false`);
}
