/** Checks one network of a configuration file, and the configurations nested in it. */

import { atLeast, specVersions } from '../../lib/cni/version.ts';
import { isObject } from '../../lib/object.ts';
import type { Suite } from '../../main.ts';
import { innerConfigs, makerOf } from '../inner.ts';
import { ipamOf } from '../ipam.ts';
import { hasPath, type JsonNode, nodeAt } from '../json.ts';
import { ConfigError, type NetworkList, networkFrom, type PluginEntry } from '../libcni/conflist.ts';
import { isFull, reservationsOf } from '../reservations.ts';
import { conflistProperties, loadPlugin } from '../schema.ts';
import { addressingFindings } from './addressing.ts';
import { at, error, type Finding, warning } from './finding.ts';
import { type CheckedPlugin, hostFindings, overlapFindings } from './host.ts';
import { checkPlugin, type PluginNode, typeOf } from './plugin.ts';
import { keyFindings } from './schema.ts';

/** What networks are checked against. */
export interface CheckOptions {
  /** Whose schemas apply. */
  readonly suite: Suite;
  /** Tells whether an executable is where the runtime would look for it; undefined when nobody knows. */
  readonly isInstalled: ((name: string) => boolean) | undefined;
  /** Where plugins find their delegates, if the networks are for this host. */
  readonly hostPath: readonly string[] | undefined;
  /** Whether to look at how far this host has used up the networks' ranges. */
  readonly looksAtUse: boolean;
}

/** A network that a runtime or a plugin could load. */
export interface CheckedNetwork {
  readonly network: NetworkList;
  readonly plugins: readonly CheckedPlugin[];
}

/** What there is to say about a network. */
interface Check {
  /** The network itself, if it could be loaded, followed by those nested in it. */
  readonly networks: readonly CheckedNetwork[];
  readonly findings: readonly Finding[];
}

/**
 * Checks a network.
 * @param root its configuration. @param text of its file. @param file path of that file.
 */
export function checkNetwork(
  root: JsonNode,
  text: string,
  file: string,
  options: CheckOptions,
): Promise<Check> {
  return check({ root, text, file, path: '' }, options);
}

/** A network, and its path in its file: "" if it is the whole file. */
interface Place {
  readonly root: JsonNode;
  readonly text: string;
  readonly file: string;
  readonly path: string;
}

async function check(place: Place, options: CheckOptions): Promise<Check> {
  const { root, path } = place;
  const { suite, isInstalled, hostPath, looksAtUse } = options;
  const isInner = path !== '';
  const findings: Finding[] = [];
  const network = readNetwork(place, findings);
  const entries = pluginNodes(root, path);
  const { name = '', cniVersion = '' } = network ?? {};
  findings.push(...keyFindings({ properties: topLevelKeys }, topLevel(root), path));
  const inner: CheckedNetwork[] = [];
  for (const [i, entry] of entries.entries()) {
    const surroundings = { suite, isInstalled, isFirst: i === 0, network: { name, cniVersion } };
    findings.push(...(await checkPlugin(entry, surroundings)));
    const inners = await innerConfigs(
      typeOf(entry) ?? '',
      entry.node.value as PluginEntry['config'],
      surroundings.network,
      suite,
    );
    for (const one of inners) {
      const own = { ...(nodeAt(entry.node, one.path) ?? { start: entry.node.start }), value: one.value };
      const where = at(entry.path, one.path);
      if (one.isNetwork) {
        const found = await check({ ...place, root: own, text: '', file: '', path: where }, options);
        inner.push(...found.networks);
        findings.push(...found.findings);
      } else
        findings.push(
          ...(await checkPlugin({ node: own, path: where }, { ...surroundings, isFirst: false })),
        );
    }
  }
  findings.push(...(await checkRepetition(entries, path, suite)));
  if (!network) return { networks: inner, findings };
  // A nested network may inherit the cniVersion of the network around it.
  if (!isInner || hasPath(root, 'cniVersion')) findings.push(...checkVersion(network, path));
  findings.push(...(await checkVersions(network, entries, suite)));
  if (looksAtUse) findings.push(...checkUse(network, path));
  const plugins: CheckedPlugin[] = [];
  for (const [i, entry] of network.plugins.entries()) {
    const own = {
      entry,
      maker: makerOf(entry, await innerConfigs(entry.type, entry.config, network, suite)),
      pools: (await ipamOf(entry, network, suite))?.pools ?? [],
      path: entries[i]?.path ?? path,
    };
    plugins.push(own);
    if (findings.some((finding) => finding.severity === 'error' && isAt(finding, own.path, path))) continue;
    findings.push(...addressingFindings(entry.config, own.pools, own.path));
    // A nested network is asked for its STATUS by the plugin that it is for.
    if (hostPath && isInner) findings.push(...overlapFindings(own));
    else if (hostPath) findings.push(...(await hostFindings({ ...own, network }, { suite, hostPath })));
  }
  return { networks: [{ network, plugins }, ...inner], findings };
}

/** A chained plugin that runs twice finds its own traces the second time. */
async function checkRepetition(
  places: readonly PluginNode[],
  path: string,
  suite: Suite,
): Promise<Finding[]> {
  const types = places.map(typeOf);
  for (const [i, type] of types.entries())
    if (type && types.indexOf(type) < i && (await loadPlugin(suite.plugins, type))?.role === 'chained')
      return [
        warning(
          'plugin-twice',
          at(path, 'plugins'),
          `Plugin "${type}" is in the list twice. Remove one, unless both are meant`,
        ),
      ];
  return [];
}

/** Ranges of which this host has handed out the last address. */
function checkUse(network: NetworkList, path: string): Finding[] {
  return reservationsOf(network)
    .ranges.filter(isFull)
    .map(({ range, used }) =>
      warning(
        'range-full',
        at(path, 'plugins'),
        `All ${used} addresses of ${range} are reserved on this host, so that the next ADD fails. ` +
          `See "cni list" for who holds them, run "cni gc ${network.name}", or make the range larger`,
      ),
    );
}

function readNetwork({ root, text, file, path }: Place, findings: Finding[]): NetworkList | undefined {
  try {
    return networkFrom(root.value, Buffer.from(text), file);
  } catch (problem) {
    if (!(problem instanceof ConfigError)) throw problem;
    findings.push(error('config', problem.path === '' ? path : at(path, problem.path), problem.message));
    return undefined;
  }
}

/** The plugins of a conflist, or the single plugin that the whole file configures. */
function pluginNodes(root: JsonNode, path: string): PluginNode[] {
  const list = root.fields?.findLast(({ key }) => key === 'plugins')?.node;
  if (!list) return isObject(root.value) && root.value.type !== undefined ? [{ node: root, path }] : [];
  return (list.items ?? [])
    .map((node, i) => ({ node, path: at(path, `plugins[${i}]`) }))
    .filter(({ node }) => node.fields);
}

/** Where to check the keys around the plugins. A single configuration has none: it is checked as a plugin. */
function topLevel(root: JsonNode): JsonNode {
  return isObject(root.value) && root.value.type !== undefined && root.value.plugins === undefined
    ? { value: root.value, start: root.start }
    : root;
}

/** Without the contents of "plugins", which are checked against the plugins' own schemas. */
const topLevelKeys = { ...conflistProperties, plugins: {} };

/** Whether a finding is about a plugin, or about the whole network. */
function isAt(finding: Finding, path: string, network: string): boolean {
  return finding.path === network || finding.path.startsWith(path);
}

function checkVersion({ cniVersion }: NetworkList, path: string): Finding[] {
  if ((specVersions as readonly string[]).includes(cniVersion)) {
    if (atLeast(cniVersion, '0.4.0')) return [];
    return [
      warning(
        'old-version',
        at(path, 'cniVersion'),
        `cniVersion "${cniVersion}" has no CHECK, and DEL is not told what ADD did. Set it to "0.4.0" or newer`,
      ),
    ];
  }
  if (cniVersion === '')
    return [
      error(
        'version',
        path,
        `There is no "cniVersion", so that runtimes assume 0.1.0. Set it, for example to "1.0.0"`,
      ),
    ];
  return [
    error(
      'version',
      at(path, 'cniVersion'),
      `cniVersion "${cniVersion}" does not exist. Set it to one of ${specVersions.join(', ')}`,
    ),
  ];
}

async function checkVersions(
  { cniVersion, plugins }: NetworkList,
  places: readonly PluginNode[],
  suite: Suite,
): Promise<Finding[]> {
  const findings: Finding[] = [];
  for (const [i, { type }] of plugins.entries()) {
    const versions = (await loadPlugin(suite.plugins, type))?.versions;
    if (versions && cniVersion !== '' && !versions.includes(cniVersion))
      findings.push(
        error(
          'version',
          at(places[i]?.path ?? '', 'type'),
          `Plugin "${type}" does not support cniVersion "${cniVersion}", only ${versions.join(', ')}`,
        ),
      );
  }
  return findings;
}
