/** Checks one plugin of a configuration file. */

import { configSchema, type Plugin } from '../../lib/cni/plugin.ts';
import { decode, getKey, type JsonSchema } from '../../lib/cni/schema.ts';
import { isObject } from '../../lib/object.ts';
import type { Suite } from '../../main.ts';
import { hasPath, type JsonNode } from '../json.ts';
import { ipamTypeOf, type PluginEntry, wholeConfig } from '../libcni/conflist.ts';
import { capabilitiesOf, configProperties, loadPlugin, runtimeKeys } from '../schema.ts';
import { at, error, type Finding, warning } from './finding.ts';
import { keyFindings, schemaFindings } from './schema.ts';
import { didYouMean } from './suggest.ts';

/** A plugin's configuration, and its path in its file. */
export interface PluginNode {
  readonly node: JsonNode;
  readonly path: string;
}

/** What a plugin's configuration is checked against. */
export interface Surroundings {
  readonly suite: Suite;
  /** Tells whether an executable is where the runtime would look for it; undefined when nobody knows. */
  readonly isInstalled: ((name: string) => boolean) | undefined;
  readonly isFirst: boolean;
  /** Name and version of the network. */
  readonly network: { readonly name: string; readonly cniVersion: string };
}

/** The type of a plugin's configuration, if it has one. */
export function typeOf({ node }: PluginNode): string | undefined {
  const type = isObject(node.value) ? node.value.type : undefined;
  return typeof type === 'string' ? type : undefined;
}

/** Checks a plugin's configuration by itself. */
export async function checkPlugin(place: PluginNode, surroundings: Surroundings): Promise<Finding[]> {
  const { node, path } = place;
  const { suite, isInstalled, isFirst, network } = surroundings;
  const value = node.value as Record<string, unknown>;
  const type = typeOf(place);
  if (!type) return []; // Reported already, by whoever read the network.
  const plugin = await loadPlugin(suite.plugins, type);
  const ipamType = ipamTypeOf(value);
  const ipam = ipamType === undefined ? undefined : await loadPlugin(suite.ipam, ipamType);
  const findings: Finding[] = [];
  const report = (rule: string, where: string, message: string) => findings.push(error(rule, where, message));

  if (suite.ipam.has(type))
    report(
      'ipam-as-plugin',
      at(path, 'type'),
      `"${type}" manages addresses. Name it in the "ipam" of another plugin`,
    );
  findings.push(...installed(type, at(path, 'type'), [...suite.plugins.keys()], isInstalled));
  if (ipamType)
    findings.push(...installed(ipamType, at(path, 'ipam.type'), [...suite.ipam.keys()], isInstalled));
  if (isFirst && plugin?.role === 'chained')
    report(
      'chain-order',
      at(path, 'type'),
      `Plugin "${type}" works on the interface of a plugin before it, but it is the first one. ` +
        'Put it after, for example, "bridge"',
    );
  // Only as the first one: after another plugin, it may use that plugin's addresses.
  if (isFirst && plugin?.needsIpam && !ipamType)
    report(
      'no-ipam',
      path,
      `Plugin "${type}" needs addresses, but has no "ipam" with a "type". Set it, for example to "host-local"`,
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
  const mistakes = new Map<string, Finding>();
  for (const one of ipam ? [plugin, ipam] : [plugin]) {
    let refused = schemaFindings(one.config, value, path);
    if (refused.length === 0) refused = ownFindings(one, wholeConfig({ config: value }, network), place);
    // Both report mistakes in keys that both read.
    for (const finding of refused) mistakes.set(finding.message, finding);
  }
  findings.push(...mistakes.values());
  findings.push(...keyFindings({ properties: configProperties(plugin, ipam) }, node, path));
  findings.push(...checkCapabilities(value, plugin, ipam, path));
  return findings;
}

/** What the plugin itself refuses, or ignores, of a configuration that fits its schema. */
function ownFindings(
  plugin: Plugin<unknown>,
  config: PluginEntry['config'],
  { node, path }: PluginNode,
): Finding[] {
  try {
    const decoded = decode(configSchema(plugin), config) as never;
    plugin.validate?.(decoded);
    const ignored = plugin.ignores?.(decoded) ?? [];
    return ignored.map((message) => warning('no-effect', at(path, placeOf(message, node)), message));
  } catch (problem) {
    const problems = problem instanceof AggregateError ? problem.errors : [problem];
    return (problems as Error[]).map(({ message }) =>
      error('config', at(path, placeOf(message, node)), message),
    );
  }
}

/** The first key that is named in a message and exists in the configuration, so that it can be pointed at. */
function placeOf(message: string, node: JsonNode): string {
  const named = [...message.matchAll(/"([^"\s]+)"/g)].flatMap(([, key]) => [key!, `ipam.${key}`]);
  return named.find((key) => hasPath(node, key)) ?? (message.includes('"ipam') ? 'ipam' : '');
}

function installed(
  name: string,
  path: string,
  known: readonly string[],
  isInstalled: ((name: string) => boolean) | undefined,
): Finding[] {
  if (name.includes('/'))
    return [error('plugin-missing', path, `"${name}" is a path, not the name of a plugin`)];
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
  const known = Object.assign({}, ...(ipam ? [plugin, ipam] : [plugin]).map(capabilitiesOf)) as JsonSchema;
  const taken = Object.keys(known);
  for (const [key, on] of Object.entries(capabilities))
    if (on === true && !taken.includes(key) && !plugin.passesCapabilities)
      findings.push(
        warning(
          'capability-unused',
          `${at(path, 'capabilities')}.${key}`,
          `Plugin "${plugin.name}" does nothing with capability "${key}"${didYouMean(key, taken)}`,
        ),
      );
  const { capability } = plugin;
  if (capability && capabilities[capability] !== true && !replacesCapability(value, known[capability]))
    findings.push(
      warning(
        'capability-missing',
        path,
        `Plugin "${plugin.name}" never has anything to do, because the runtime passes it nothing. ` +
          `Add "capabilities": {"${capability}": true}`,
      ),
    );
  return findings;
}

/**
 * True if the configuration itself has what the runtime would pass, as bandwidth limits may be in either.
 */
function replacesCapability(value: Record<string, unknown>, schema: unknown): boolean {
  const properties = isObject(schema) && isObject(schema.properties) ? schema.properties : {};
  return Object.keys(properties).some((key) => getKey(value, key) !== undefined);
}
