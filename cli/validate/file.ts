/** Checks one configuration file by itself. */

import { readFileSync } from 'node:fs';
import type { AddressPool } from '../../lib/cni/plugin.ts';
import { atLeast, specVersions } from '../../lib/cni/version.ts';
import type { Once } from '../../lib/kernel/sharing.ts';
import { isObject } from '../../lib/object.ts';
import type { Suite } from '../../main.ts';
import { poolsOf } from '../addresses.ts';
import { type JsonNode, JsonSyntaxError, parseJson } from '../json.ts';
import {
  ConfigError,
  ipamTypeOf,
  type NetworkList,
  networkFrom,
  type PluginEntry,
  readConfigFile,
  wholeConfig,
} from '../libcni/conflist.ts';
import { isFull, reservationsOf } from '../reservations.ts';
import { conflistProperties, loadPlugin } from '../schema.ts';
import { standardInput } from '../settings.ts';
import { addressingFindings } from './addressing.ts';
import { error, type Finding, warning } from './finding.ts';
import { hostFindings } from './host.ts';
import { checkPlugin, type PluginNode, typeOf } from './plugin.ts';
import { keyFindings } from './schema.ts';

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
  /** What each of the network's plugins may give away, in their order. */
  readonly pools: readonly (readonly AddressPool[])[];
  readonly findings: Finding[];
}

/** What files are checked against. */
export interface CheckOptions {
  /** Whose schemas count. */
  readonly suite: Suite;
  /** Tells whether an executable is where the runtime would look for it; undefined when nobody knows. */
  readonly isInstalled: ((name: string) => boolean) | undefined;
  /** Where plugins find their delegates, if the networks are for this host. */
  readonly hostPath: readonly string[] | undefined;
  /** Shares what is seen with others that look at the host at the same time. */
  readonly once?: Once;
}

/** Reads a file, or what a shell hands over as one, as in `cni validate <(…)`. */
function read(file: string): string {
  return file.startsWith('/dev/fd/') ? readFileSync(file, 'utf8') : readConfigFile(file);
}

/** Checks a file. */
export async function checkFile(
  file: string,
  { suite, isInstalled, hostPath, once }: CheckOptions,
): Promise<CheckedFile> {
  const nothing = { file, text: '', root: undefined, syntaxOffset: undefined, network: undefined, pools: [] };
  let text: string;
  try {
    text = file === standardInput ? readFileSync(0, 'utf8') : read(file);
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
  const { name = '', cniVersion = '' } = network ?? {};
  findings.push(...keyFindings({ properties: topLevelKeys }, topLevel(root), ''));
  for (const [i, entry] of entries.entries()) {
    const surroundings = { suite, isInstalled, isFirst: i === 0, network: { name, cniVersion } };
    findings.push(...(await checkPlugin(entry, surroundings)));
  }
  findings.push(...(await checkRepetition(entries.map(typeOf), suite)));
  if (network)
    findings.push(
      ...checkVersion(network),
      ...(await checkVersions(network, suite)),
      ...checkUse(network, once),
    );
  const pools = [];
  for (const [i, entry] of (network?.plugins ?? []).entries()) {
    const own = await readPools(entry, network!, suite);
    pools.push(own);
    const path = entries[i]?.path ?? '';
    if (findings.some((finding) => finding.severity === 'error' && isAt(finding, path))) continue;
    findings.push(...addressingFindings(entry.config, own, path));
    if (hostPath)
      findings.push(
        ...(await hostFindings({ entry, network: network!, pools: own, path }, { suite, hostPath })),
      );
  }
  return { file, text, root, syntaxOffset: undefined, network, pools, findings };
}

/** The addresses of a plugin. Those that cannot be read have been reported. */
async function readPools(entry: PluginEntry, network: NetworkList, suite: Suite): Promise<AddressPool[]> {
  const ipam = await loadPlugin(suite.ipam, ipamTypeOf(entry.config) ?? '');
  try {
    return poolsOf(wholeConfig(entry, network), ipam);
  } catch {
    return [];
  }
}

/** Plugins that change what others made find their own traces the second time. */
async function checkRepetition(types: readonly (string | undefined)[], suite: Suite): Promise<Finding[]> {
  for (const [i, type] of types.entries())
    if (type && types.indexOf(type) < i && (await loadPlugin(suite.plugins, type))?.role === 'chained')
      return [
        warning(
          'plugin-twice',
          'plugins',
          `Plugin "${type}" is in the list twice. Remove one, unless both are meant`,
        ),
      ];
  return [];
}

/** Ranges that this host has given away to the last address. */
function checkUse(network: NetworkList, once?: Once): Finding[] {
  return reservationsOf(network, once)
    .ranges.filter(isFull)
    .map(({ range, used }) =>
      warning(
        'range-full',
        'plugins',
        `All ${used} addresses of ${range} are reserved on this host, so that the next ADD fails. ` +
          `See "cni list" for who holds them, run "cni gc ${network.name}", or make the range larger`,
      ),
    );
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

/** What the plugins hold is checked against their own schemas. */
const topLevelKeys = { ...conflistProperties, plugins: {} };

/** Whether a finding is about a plugin, or about the whole file. */
function isAt(finding: Finding, path: string): boolean {
  return finding.path === '' || finding.path.startsWith(path);
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
