/** multus: attaches a pod to a default network and to those that it asks for, with the keys of Multus. */

import { existsSync, statSync } from 'node:fs';
import { matchesGlob } from 'node:path';
import type { Call } from '../lib/cni/call.ts';
import {
  array,
  boolean,
  type InferShape,
  json,
  object,
  required,
  string,
  withDefault,
} from '../lib/cni/schema.ts';
import { CniError, ErrorCode } from '../lib/errors.ts';
import {
  annotationsOf,
  asDelegates,
  type Choice,
  inlineNetwork,
  networkNamed,
} from '../lib/networks/choice.ts';
import { type NetworkList, networkFiles, readNetwork } from '../lib/networks/conflist.ts';
import { type Pod, podOf } from '../lib/networks/pod.ts';
import { parseSelections, type Selection } from '../lib/networks/selection.ts';
import { defineSeveralNetworks } from '../lib/networks/several.ts';

const networksAnnotation = 'k8s.v1.cni.cncf.io/networks';
const defaultAnnotation = 'v1.multus-cni.io/default-network';

const config = {
  delegates: array(json(), {
    description: 'Networks of every pod, each a plugin or a conflist; the first is its default network.',
  }),
  clusterNetwork: string({
    description: 'Default network in place of "delegates": its name, or the path of its file or directory.',
  }),
  defaultNetworks: array(string(), {
    description: 'Further networks of every pod that is not in "systemNamespaces".',
  }),
  rules: array(
    object({
      namespace: string({ description: 'Pattern of namespaces, such as "prod-*"; all when left out.' }),
      name: string({ description: 'Pattern of the names of pods, such as "db-*"; all when left out.' }),
      networks: required(string({ description: 'Networks of such pods, as in "storage@net1,backup".' })),
    }),
    { description: 'Further networks of certain pods, for nodes without an API.' },
  ),
  confDir: string({
    description:
      'Directory of the networks that are referred to by name; by default /etc/cni/multus/net.d, then /etc/cni/net.d.',
  }),
  cniDir: withDefault(
    string({ description: 'Directory in which the networks of each container are saved.' }),
    '/var/lib/cni/multus',
  ),
  systemNamespaces: withDefault(
    array(string(), { description: 'Namespaces whose pods get no "defaultNetworks".' }),
    ['kube-system'],
  ),
  namespaceIsolation: withDefault(
    boolean({
      description: 'Refuse pods networks of other namespaces than their own and "globalNamespaces".',
    }),
    false,
  ),
  globalNamespaces: withDefault(
    string({ description: 'Namespaces whose networks every pod may have, separated by commas.' }),
    'default',
  ),
  readinessindicatorfile: string({
    description: 'File that the default network writes when it is ready; without it, no pod is attached.',
  }),
};

type Config = InferShape<typeof config>;
type MultusCall = Call<Config>;

export const plugin = defineSeveralNetworks({
  name: 'multus',
  summary: 'Attaches a pod to a default network and to those that it asks for.',
  config,

  validate({ delegates = [], clusterNetwork, rules = [] }) {
    if (delegates.length === 0 && !clusterNetwork)
      throw new Error(
        'There is no default network. Name one in "clusterNetwork", or put its configuration into "delegates"',
      );
    for (const [i, { networks }] of rules.entries()) parseSelections(networks, `"rules[${i}].networks"`);
  },

  explain: ({ clusterNetwork, defaultNetworks = [], rules = [], cniDir, namespaceIsolation }) => [
    `Attaches the pod to ${clusterNetwork ? `network "${clusterNetwork}"` : 'the networks in "delegates"'}, the first of which gets the interface of the call and the default route`,
    defaultNetworks.length > 0 ? `Attaches it to ${quoted(defaultNetworks)} as well, as net1 and so on` : '',
    ...rules.map(
      ({ namespace = '*', name = '*', networks }) =>
        `Attaches pods "${name}" of namespace "${namespace}" to "${networks}"`,
    ),
    `Attaches it to the networks in its annotation "${networksAnnotation}"${namespaceIsolation ? ', if they are of its namespace or of a global one' : ''}`,
    `Remembers the networks of each container in ${cniDir}`,
  ],

  directoryOf: ({ cniDir }) => cniDir,

  choose(call) {
    requireReadiness(call.config);
    const pod = podOf(call);
    const annotations = annotationsOf(call);
    const selections = [
      ...rulesFor(call.config, pod),
      ...parseSelections(annotations[networksAnnotation] ?? '', `Annotation "${networksAnnotation}"`),
      ...parseSelections(pod.networks, 'CNI_ARGS: NETWORKS'),
    ];
    const choices = [
      ...replaceFirst(call, baseNetworks(call, pod), annotations[defaultAnnotation]),
      ...selections.map((one) => selected(call, pod, one)),
    ];
    return asDelegates(call, choices, (index) => `net${index}`);
  },

  required(call) {
    requireReadiness(call.config);
    return baseNetworks(call).map(({ network }) => network);
  },
});

/** @throws CniError while the default network is not ready. */
function requireReadiness({ readinessindicatorfile: file }: Config): void {
  if (file && !existsSync(file))
    throw new CniError(
      ErrorCode.TryAgainLater,
      `"${file}" does not exist yet, so the default network is not ready. Wait until it is, or correct "readinessindicatorfile"`,
    );
}

/** The networks of every pod. @param pod undefined for those without which no pod can be attached. */
function baseNetworks(call: MultusCall, pod?: Pod): Choice[] {
  const { delegates = [], clusterNetwork, defaultNetworks = [], systemNamespaces } = call.config;
  plugin.validate?.(call.config);
  const first = clusterNetwork
    ? [configuredNetwork(call, clusterNetwork)]
    : delegates.map((one, i) => inlineNetwork(one, `delegates[${i}]`, call));
  const isSystem = pod ? systemNamespaces.includes(pod.namespace) : systemNamespaces.length > 0;
  const further = isSystem ? [] : defaultNetworks.map((name) => configuredNetwork(call, name));
  return [...first, ...further].map((network) => ({ network }));
}

function directories({ confDir }: Config): string[] {
  return confDir ? [confDir] : ['/etc/cni/multus/net.d', '/etc/cni/net.d'];
}

/** A network that the configuration names, by name or by path. @throws ConfigError */
function configuredNetwork({ config }: MultusCall, name: string): NetworkList {
  if (!name.startsWith('/')) return networkNamed(directories(config), name);
  if (!statSync(name, { throwIfNoEntry: false })?.isDirectory()) return readNetwork(name);
  const [file] = networkFiles(name);
  if (file !== undefined) return readNetwork(file);
  throw new Error(`Directory "${name}" has no network. Put one there, or name another in the configuration`);
}

/** The networks that the configuration has for a pod, by its names. */
function rulesFor({ rules = [] }: Config, pod: Pod): Selection[] {
  return rules
    .filter(
      ({ namespace = '*', name = '*' }) =>
        matchesGlob(pod.namespace, namespace) && matchesGlob(pod.name, name),
    )
    .flatMap(({ networks }) => parseSelections(networks, '"rules"'));
}

/** A network that the pod asks for. @throws Error when it may not have it, or there is none. */
function selected({ config }: MultusCall, pod: Pod, selection: Selection): Choice {
  const namespace = selection.namespace || pod.namespace;
  const allowed = [pod.namespace, ...config.globalNamespaces.split(',').map((one) => one.trim())];
  if (config.namespaceIsolation && !allowed.includes(namespace))
    throw new Error(
      `The pod asks for network "${selection.name}" of namespace "${namespace}", but "namespaceIsolation" allows it only those of ${quoted(allowed)}. Use one of these, or add the namespace to "globalNamespaces"`,
    );
  return { network: networkNamed(directories(config), selection.name), selection };
}

/** The networks of every pod with the first in exchange for that which the pod's annotation names. */
function replaceFirst(call: MultusCall, networks: Choice[], annotation: string | undefined): Choice[] {
  if (!annotation) return networks;
  const where = `Annotation "${defaultAnnotation}"`;
  const [wanted, ...others] = parseSelections(annotation, where);
  if (!wanted || others.length > 0) throw new Error(`${where} must name exactly one network`);
  const network = networkNamed(directories(call.config), wanted.name);
  return [{ network, selection: { ...wanted, ifname: '' } }, ...networks.slice(1)];
}

function quoted(names: readonly string[]): string {
  return [...new Set(names)].map((name) => `"${name}"`).join(', ');
}
