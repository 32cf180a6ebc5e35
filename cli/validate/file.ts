/** Checks one configuration file by itself. */

import { readFileSync } from 'node:fs';
import type { Plugin } from '../../lib/cni/plugin.ts';
import { isObject } from '../../lib/cni/schema.ts';
import { atLeast, specVersions } from '../../lib/cni/version.ts';
import type { Suite } from '../../main.ts';
import { ipamTypeOf, rangeSetsOf } from '../addresses.ts';
import { type JsonNode, JsonSyntaxError, parseJson } from '../json.ts';
import { ConfigError, type NetworkList, networkFrom } from '../libcni/conflist.ts';
import { configProperties, conflistProperties, loadPlugin, propertiesOf, runtimeKeys } from '../schema.ts';
import { at, error, type Finding, warning } from './finding.ts';
import { keyFindings, schemaFindings } from './schema.ts';
import { didYouMean } from './suggest.ts';

/** A file and what there is to say about it. */
export interface CheckedFile {
  readonly file: string;
  readonly text: string;
  /** Undefined when it is not JSON. */
  readonly root: JsonNode | undefined;
  /** Offset of the first mistake in the syntax. */
  readonly syntaxOffset: number | undefined;
  /** Undefined when no runtime could load it. */
  readonly network: NetworkList | undefined;
  readonly findings: Finding[];
}

/** Plugins that work on what others made, and so cannot stand first. */
const chainedPlugins = new Set(['bandwidth', 'firewall', 'portmap', 'sbr', 'tuning', 'vrf']);
/** Plugins that refuse to work without addresses. */
const plugsWithAddresses = new Set(['dummy', 'ptp', 'vlan']);
/** Plugins that do nothing unless the runtime passes them what their capability is for. */
const expectedCapabilities = { portmap: 'portMappings', bandwidth: 'bandwidth' } as const;

/**
 * Checks a file.
 * @param isInstalled tells whether an executable is where the runtime would look for it; undefined when nobody knows.
 */
export async function checkFile(
  file: string,
  suite: Suite,
  isInstalled: ((name: string) => boolean) | undefined,
): Promise<CheckedFile> {
  const nothing = { file, text: '', root: undefined, syntaxOffset: undefined, network: undefined };
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (problem) {
    return {
      ...nothing,
      findings: [error('unreadable', '', `Cannot be read: ${(problem as Error).message}`)],
    };
  }
  let root: JsonNode;
  try {
    root = parseJson(text);
  } catch (problem) {
    if (!(problem instanceof JsonSyntaxError)) throw problem;
    return {
      ...nothing,
      text,
      syntaxOffset: problem.offset,
      findings: [error('syntax', '', problem.message)],
    };
  }
  const findings: Finding[] = [];
  const network = readNetwork(root, text, file, findings);
  const entries = pluginNodes(root);
  const types = entries.map(({ node }) => typeOf(node));
  findings.push(...keyFindings({ properties: topLevelKeys(entries) }, topLevel(root), ''));
  for (const [i, { node, path }] of entries.entries())
    findings.push(...(await checkPlugin(node, path, { suite, isInstalled, isFirst: i === 0 })));
  if (network) findings.push(...checkVersion(network), ...(await checkVersions(network, suite)));
  const twice = types.find(
    (type, i) => type !== undefined && chainedPlugins.has(type) && types.indexOf(type) < i,
  );
  if (twice) findings.push(warning('plugin-twice', 'plugins', `Plugin "${twice}" is in the list twice`));
  return { file, text, root, syntaxOffset: undefined, network, findings };
}

function readNetwork(
  root: JsonNode,
  text: string,
  file: string,
  findings: Finding[],
): NetworkList | undefined {
  try {
    return networkFrom(root.value, Buffer.from(text), file);
  } catch (problem) {
    if (!(problem instanceof ConfigError)) throw problem;
    findings.push(error('config', problem.path, problem.message));
    return undefined;
  }
}

interface PluginNode {
  node: JsonNode;
  path: string;
}

/** The plugins of a conflist, or the one that the whole file is. */
function pluginNodes(root: JsonNode): PluginNode[] {
  const list = root.fields?.findLast(({ key }) => key === 'plugins')?.node;
  if (!list) return isObject(root.value) && root.value.type !== undefined ? [{ node: root, path: '' }] : [];
  return (list.items ?? [])
    .map((node, i) => ({ node, path: `plugins[${i}]` }))
    .filter(({ node }) => node.fields);
}

/** A single configuration is checked as a plugin; of a conflist, this leaves the keys around the plugins. */
function topLevel(root: JsonNode): JsonNode {
  return isObject(root.value) && root.value.type !== undefined && root.value.plugins === undefined
    ? { value: root.value, start: root.start }
    : root;
}

function topLevelKeys(entries: readonly PluginNode[]): Record<string, unknown> {
  // What the plugins hold is checked against their own schemas.
  return entries.length > 0 ? { ...conflistProperties, plugins: {} } : conflistProperties;
}

function typeOf(node: JsonNode): string | undefined {
  const type = isObject(node.value) ? node.value.type : undefined;
  return typeof type === 'string' ? type : undefined;
}

interface Surroundings {
  readonly suite: Suite;
  readonly isInstalled: ((name: string) => boolean) | undefined;
  readonly isFirst: boolean;
}

async function checkPlugin(
  node: JsonNode,
  path: string,
  { suite, isInstalled, isFirst }: Surroundings,
): Promise<Finding[]> {
  const value = node.value as Record<string, unknown>;
  const type = typeOf(node);
  if (!type) return []; // Said already, by whoever read the network.
  const findings: Finding[] = [];
  const plugin = await loadPlugin(suite.plugins, type);
  const ipamType = ipamTypeOf(value);
  const ipam = ipamType === undefined ? undefined : await loadPlugin(suite.ipam, ipamType);

  if (suite.ipam.has(type))
    findings.push(
      error(
        'ipam-as-plugin',
        at(path, 'type'),
        `"${type}" manages addresses. Name it in the "ipam" of another plugin`,
      ),
    );
  findings.push(...installed(type, at(path, 'type'), [...suite.plugins.keys()], isInstalled));
  if (ipamType)
    findings.push(...installed(ipamType, at(path, 'ipam.type'), [...suite.ipam.keys()], isInstalled));
  if (isFirst && chainedPlugins.has(type))
    findings.push(
      error(
        'chain-order',
        at(path, 'type'),
        `Plugin "${type}" works on the interface of a plugin before it, but it is the first one. Put it behind, for example, "bridge"`,
      ),
    );
  if (plugsWithAddresses.has(type) && !ipamType)
    findings.push(
      error(
        'no-ipam',
        path,
        `Plugin "${type}" needs addresses, but has no "ipam" with a "type", such as "host-local"`,
      ),
    );
  for (const key of runtimeKeys)
    if (value[key] !== undefined)
      findings.push(
        warning(
          'runtime-key',
          at(path, key),
          `Key "${key}" is filled in by the runtime at each call. Remove it`,
        ),
      );
  // What follows needs the plugin's own schema.
  if (!plugin) return findings;
  findings.push(...schemaFindings(plugin.config, value, path));
  const ipamFindings = ipam ? schemaFindings(ipam.config, value, path) : [];
  if (ipam?.name === 'host-local' && ipamFindings.length === 0)
    ipamFindings.push(...checkRanges(value, at(path, 'ipam')));
  findings.push(...ipamFindings);
  findings.push(...keyFindings({ properties: configProperties(plugin, ipam) }, node, path));
  findings.push(...checkCapabilities(value, plugin, ipam, path));
  return findings;
}

function installed(
  name: string,
  path: string,
  known: readonly string[],
  isInstalled: ((name: string) => boolean) | undefined,
): Finding[] {
  if (name.includes('/'))
    return [error('plugin-missing', path, `"${name}" is no name of a plugin, but a path`)];
  if (isInstalled?.(name)) return [];
  const guess = known.includes(name) ? '' : didYouMean(name, known);
  if (isInstalled)
    return [
      error(
        'plugin-missing',
        path,
        `Plugin "${name}" is not installed${guess || '. Install it, or correct the "type"'}`,
      ),
    ];
  return guess ? [warning('plugin-unknown', path, `Plugin "${name}" is not of this suite${guess}`)] : [];
}

function checkCapabilities(
  value: Record<string, unknown>,
  plugin: Plugin<unknown>,
  ipam: Plugin<unknown> | undefined,
  path: string,
): Finding[] {
  const capabilities = isObject(value.capabilities) ? value.capabilities : {};
  const findings: Finding[] = [];
  const taken = [plugin, ...(ipam ? [ipam] : [])].flatMap(capabilitiesOf);
  for (const [key, on] of Object.entries(capabilities))
    if (on === true && !taken.includes(key))
      findings.push(
        warning(
          'capability-unused',
          `${at(path, 'capabilities')}.${key}`,
          `Plugin "${plugin.name}" does nothing with capability "${key}"${didYouMean(key, taken)}`,
        ),
      );
  const expected = expectedCapabilities[plugin.name as keyof typeof expectedCapabilities];
  const hasOwnRates =
    plugin.name === 'bandwidth' && Object.keys(value).some((key) => /(in|e)gress/i.test(key));
  if (expected && capabilities[expected] !== true && !hasOwnRates)
    findings.push(
      warning(
        'capability-missing',
        path,
        `Plugin "${plugin.name}" never gets anything to do, because the runtime passes it nothing. ` +
          `Add "capabilities": {"${expected}": true}`,
      ),
    );
  return findings;
}

/** Capabilities that a plugin takes, in "runtimeConfig". */
function capabilitiesOf(plugin: Plugin<unknown>): string[] {
  const { runtimeConfig } = propertiesOf(plugin);
  return isObject(runtimeConfig) && isObject(runtimeConfig.properties)
    ? Object.keys(runtimeConfig.properties)
    : [];
}

/** What the schema cannot say of host-local's ranges. */
function checkRanges(config: Record<string, unknown>, path: string): Finding[] {
  try {
    if (rangeSetsOf(config).length > 0) return [];
    return [error('ranges', path, 'host-local has no addresses to give away. Set "ranges" or "subnet"')];
  } catch (problem) {
    const { message } = problem as Error;
    // The message names the range, so that it can be pointed at. A flat "subnet" counts as the first one.
    const where =
      isObject(config.ipam) && !config.ipam.subnet
        ? /"ipam(\.ranges[[\]\d]+)"/.exec(message)?.[1]
        : undefined;
    return [error('ranges', path + (where ?? ''), message)];
  }
}

function checkVersion({ cniVersion }: NetworkList): Finding[] {
  if ((specVersions as readonly string[]).includes(cniVersion)) {
    if (atLeast(cniVersion, '0.4.0')) return [];
    return [
      warning(
        'old-version',
        'cniVersion',
        `cniVersion "${cniVersion}" has no CHECK, and DEL is not told what ADD did. Set it to "0.4.0" or newer`,
      ),
    ];
  }
  if (cniVersion === '')
    return [
      error(
        'version',
        '',
        `There is no "cniVersion", so that runtimes assume 0.1.0. Set it, for example to "1.0.0"`,
      ),
    ];
  return [
    error(
      'version',
      'cniVersion',
      `cniVersion "${cniVersion}" does not exist. Set it to one of ${specVersions.join(', ')}`,
    ),
  ];
}

async function checkVersions({ cniVersion, plugins }: NetworkList, suite: Suite): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const [i, { type }] of plugins.entries()) {
    const versions = (await loadPlugin(suite.plugins, type))?.versions;
    if (versions && cniVersion !== '' && !versions.includes(cniVersion))
      findings.push(
        error(
          'version',
          `plugins[${i}].type`,
          `Plugin "${type}" does not support cniVersion "${cniVersion}", only ${versions.join(', ')}`,
        ),
      );
  }
  return findings;
}
