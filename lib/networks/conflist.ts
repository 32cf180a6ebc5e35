/**
 * Network configurations on disk, read as libcni reads them.
 * Source: CNI specification 1.1.0, section 1; the file names and precedence are libcni's.
 */

import { readdirSync } from 'node:fs';
import { basename, dirname, join } from 'node:path';
import { isValidName } from '../cni/invocation.ts';
import { parseJson } from '../cni/json.ts';
import { compareVersions, newestVersion } from '../cni/version.ts';
import { readRegularFile } from '../file.ts';
import { isObject } from '../object.ts';

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
 * @param isWanted tells whether a network is the one.
 * @param skipped is told of every file that cannot be used.
 * @param read reads the file of a network.
 * @throws ConfigError when the directory cannot be read.
 */
export function findNetwork(
  directory: string,
  isWanted: (network: NetworkList) => boolean,
  skipped: (file: string, error: Error) => void,
  read: (file: string) => NetworkList = readNetwork,
): NetworkList | undefined {
  for (const file of networkFiles(directory)) {
    try {
      const network = read(file);
      if (isWanted(network)) return network;
    } catch (error) {
      skipped(file, error as Error);
    }
  }
  return undefined;
}

/** Reads a conflist, or a single configuration as a conflist of one. @throws ConfigError */
export function readNetwork(file: string): NetworkList {
  const value = readJson(file);
  return networkFrom(value, Buffer.from(JSON.stringify(value)), file);
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
      (error as NodeJS.ErrnoException).code === 'ENOENT'
        ? `The directory "${directory}" does not exist, so that this host has no networks. Make one with "cni network create NAME"`
        : `Cannot read the directory "${directory}": ${(error as Error).message}`,
    );
  }
}

/**
 * Reads a file that an operator has written, or linked to. It never blocks, and never reads without end.
 * @throws the error of open(2) or read(2), or an Error when it is not a regular file or is too large.
 */
export function readConfigFile(file: string): string {
  return readRegularFile(file, { followLink: true, limit: 16 * 1024 * 1024 });
}

/**
 * Whether libcni reads a file as a list of plugins or as a single one, which its name decides.
 * @returns undefined when the name has no known ending: the content decides then.
 */
function kindOf(file: string): 'list' | 'single' | undefined {
  if (file.endsWith('.conflist')) return 'list';
  return /\.(conf|json)$/.test(file) ? 'single' : undefined;
}

/** Reads a JSON file. @throws ConfigError when it is not valid. */
export type ReadJson = (file: string) => unknown;

/** Reads a JSON file as {@link readConfigFile} does. @throws ConfigError */
function readJson(file: string): unknown {
  try {
    return parseJson(readConfigFile(file));
  } catch (error) {
    throw new ConfigError('', `Cannot read "${file}": ${(error as Error).message}. Correct or remove it`);
  }
}

/**
 * Turns parsed JSON into a network.
 * @param value of the whole file.
 * @param bytes of the file, for the result cache.
 * @param file whose name says what it holds; "" for a configuration that is not in a file, with nothing
 *   beside it.
 * @param read how plugins in files of their own are read.
 * @throws ConfigError
 */
export function networkFrom(
  value: unknown,
  bytes: Buffer,
  file: string,
  read: ReadJson = readJson,
): NetworkList {
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
  const plugins = onlyInlined || file === '' ? inlined : [...inlined, ...filesBeside(file, name, read)];
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

/** Plugins may also be in files of their own, in a directory named after the network. */
function filesBeside(file: string, name: string, read: ReadJson): PluginEntry[] {
  if (file === '') return [];
  let files: string[];
  try {
    files = configFiles(join(dirname(file), name), ['.conf']);
  } catch {
    return []; // There is no such directory.
  }
  return files.map((path) => readPlugin(read(path), ''));
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
