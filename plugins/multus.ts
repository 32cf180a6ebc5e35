/** multus: attaches a pod to a default network and to those it asks for, with Multus's configuration keys. */

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
import { type Choice, inlineNetwork, networkNamed, wholeInlineNetwork } from '../lib/networks/choice.ts';
import { configFiles, type NetworkList, readNetwork } from '../lib/networks/conflist.ts';
import { definedNetwork, requestedNetwork } from '../lib/networks/definition.ts';
import { directoryOf, multusNetworks, usualDirectory } from '../lib/networks/directories.ts';
import {
  annotationsOf,
  defaultAnnotation,
  networksAnnotation,
  type Pod,
  podOf,
} from '../lib/networks/pod.ts';
import type { PodApi } from '../lib/networks/pod-api.ts';
import { parseSelections, type Selection } from '../lib/networks/selection.ts';
import { defineSeveralNetworks } from '../lib/networks/several.ts';
import { networkStatus, statusAnnotation } from '../lib/networks/status.ts';

const config = {
  kubeconfig: string({
    description:
      'File that says where the Kubernetes API is: the annotations of pods and the definitions of networks are read from it, and the status of pods is written.',
  }),
  multusNamespace: withDefault(
    string({
      description:
        'Namespace of the NetworkAttachmentDefinitions of "clusterNetwork", "defaultNetworks" and of default networks of pods.',
    }),
    'kube-system',
  ),
  delegates: array(json(), {
    description: 'Networks of every pod, each a plugin or a conflist; the first is its default network.',
  }),
  clusterNetwork: string({
    description:
      'Default network in place of "delegates": the name of a NetworkAttachmentDefinition or of a network on disk, or the path of a file or directory.',
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
    description: `Directory of the networks that are referred to by name; by default ${multusNetworks.join(', then ')}.`,
  }),
  cniDir: withDefault(
    string({ description: 'Directory in which the networks of each container are saved.' }),
    usualDirectory('multus'),
  ),
  binDir: string({ description: 'Directory in which plugins are looked for before those of CNI_PATH.' }),
  auxiliaryCNIChainName: string({
    description: 'Not supported: a configuration with this key of Multus is refused.',
  }),
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

  validate({ delegates = [], clusterNetwork, rules = [], auxiliaryCNIChainName: chain }) {
    if (chain)
      throw new Error(
        `"auxiliaryCNIChainName" is "${chain}", but plugins in a directory of that name are not run. Remove the key, and put those plugins into the "plugins" of the default network`,
      );
    if (delegates.length === 0 && !clusterNetwork)
      throw new Error(
        'There is no default network. Name one in "clusterNetwork", or put its configuration into "delegates"',
      );
    for (const [i, { networks }] of rules.entries()) parseSelections(networks, `"rules[${i}].networks"`);
  },

  inner: ({ delegates = [], clusterNetwork, ...config }) =>
    (clusterNetwork ? [] : delegates).map((one, i) => ({
      ...{ path: `delegates[${i}]`, value: wholeInlineNetwork(one, config), isNetwork: true },
    })),

  explain: ({ kubeconfig, clusterNetwork, defaultNetworks = [], rules = [], cniDir, namespaceIsolation }) => [
    kubeconfig
      ? `Reads the pod and the definitions of its networks from the Kubernetes API of "${kubeconfig}", and writes annotation "${statusAnnotation}" of the pod`
      : '',
    `Attaches the pod to ${clusterNetwork ? `network "${clusterNetwork}"` : 'the networks in "delegates"'}, the first of which gets the interface of the call and the default route`,
    defaultNetworks.length > 0 ? `Attaches it to ${quoted(defaultNetworks)} as well, as net1 and so on` : '',
    ...rules.map(
      ({ namespace = '*', name = '*', networks }) =>
        `Attaches pods "${name}" of namespace "${namespace}" to "${networks}"`,
    ),
    `Attaches it to the networks in its annotation "${networksAnnotation}"${namespaceIsolation ? ', if they are of its namespace or of a global one' : ''}`,
    `Remembers the networks of each container in ${cniDir}`,
  ],

  directoryOf: ({ cniDir }) => directoryOf('multus', cniDir),
  kubeconfigOf: ({ kubeconfig }) => kubeconfig,
  // A pod cannot choose the interface of its default network.
  nameInterfaces: ([, ...further], own) => [own, ...further.map((name, i) => name || `net${i + 1}`)],
  needsAnnotations: true,

  requireReady: ({ readinessindicatorfile: file }) => {
    if (file && !existsSync(file))
      throw new CniError(
        ErrorCode.TryAgainLater,
        `"${file}" does not exist yet, so the default network is not ready. Wait until it is, or correct "readinessindicatorfile"`,
      );
  },

  async choose(call, api) {
    const pod = podOf(call);
    const annotations = api ? await api.annotations() : annotationsOf(call);
    const ruled = rulesFor(call.config, pod);
    const asked = parseSelections(
      annotations[networksAnnotation] ?? '',
      `Annotation "${networksAnnotation}"`,
    );
    const given = parseSelections(pod.networks, 'CNI_ARGS: NETWORKS');
    // What the rules and CNI_ARGS ask for comes from the node, and is on its disk.
    const onDisk = (one: Selection) => selected(call, undefined, pod, one);
    const [base, first, ...further] = await Promise.all([
      baseNetworks(call, api, pod),
      exchangedDefault(call, api, pod, annotations[defaultAnnotation]),
      ...ruled.map(onDisk),
      ...asked.map((one) => selected(call, api, pod, one)),
      ...given.map(onDisk),
    ]);
    return {
      choices: [...(first ? [first, ...base.slice(1)] : base), ...further],
      annotationsFor: (added) => ({ [statusAnnotation]: networkStatus(added) }),
    };
  },

  required: (call, api) => baseNetworks(call, api),
});

/** The networks of every pod. @param pod undefined for only those that pods of all namespaces need. */
async function baseNetworks(call: MultusCall, api: PodApi | undefined, pod?: Pod): Promise<Choice[]> {
  const { delegates = [], clusterNetwork, defaultNetworks = [], systemNamespaces } = call.config;
  plugin.validate?.(call.config);
  const isSystem = pod ? systemNamespaces.includes(pod.namespace) : systemNamespaces.length > 0;
  const names = [...(clusterNetwork ? [clusterNetwork] : []), ...(isSystem ? [] : defaultNetworks)];
  const inline = clusterNetwork ? [] : delegates;
  const named = await Promise.all(names.map((name) => configuredNetwork(call, api, name)));
  return [
    ...inline.map((one, i) => ({ network: inlineNetwork(one, `delegates[${i}]`, call) })),
    ...named.flat(),
  ];
}

function directories({ confDir }: Config): readonly string[] {
  return confDir ? [confDir] : multusNetworks;
}

/**
 * The network that the configuration names; none when only the API, which is not asked, could know it.
 * @throws ConfigError; KubernetesError
 */
async function configuredNetwork(call: MultusCall, api: PodApi | undefined, name: string): Promise<Choice[]> {
  const { config } = call;
  if (name.startsWith('/')) return [{ network: networkAt(name) }];
  const which = { namespace: config.multusNamespace, name };
  const defined = api && (await definedNetwork(call, api, directories(config), which));
  if (defined) return [defined];
  try {
    return [{ network: networkNamed(directories(config), name) }];
  } catch (error) {
    if (!api && config.kubeconfig) return [];
    throw error;
  }
}

/**
 * The network in a file, or in the first file of a directory by name. As in Multus, lists do not come before
 * single plugins here.
 * @throws ConfigError
 */
function networkAt(path: string): NetworkList {
  if (!statSync(path, { throwIfNoEntry: false })?.isDirectory()) return readNetwork(path);
  const [file] = configFiles(path, ['.conf', '.conflist', '.json']);
  if (file !== undefined) return readNetwork(file);
  throw new Error(`Directory "${path}" has no network. Put one there, or name another in the configuration`);
}

/** The networks that the configured rules give a pod, by its namespace and name. */
function rulesFor({ rules = [] }: Config, pod: Pod): Selection[] {
  return rules
    .filter(({ namespace, name }) => fits(pod.namespace, namespace) && fits(pod.name, name))
    .flatMap(({ networks }) => parseSelections(networks, '"rules"'));
}

/** Without a pattern every name fits, even the empty one of a pod whose runtime passes none. */
function fits(name: string, pattern = '*'): boolean {
  return pattern === '*' || matchesGlob(name, pattern);
}

/** A network that the pod asks for. @throws Error when the pod may not have it, or it does not exist. */
async function selected(
  call: MultusCall,
  api: PodApi | undefined,
  pod: Pod,
  selection: Selection,
): Promise<Choice> {
  const { config } = call;
  const namespace = selection.namespace || pod.namespace;
  requireAllowed(config, pod, selection.name, namespace);
  if (api) return await requestedNetwork(call, api, directories(config), selection, namespace);
  return { network: networkNamed(directories(config), selection.name), selection };
}

/** @throws Error when a pod may not have networks of a namespace. */
function requireAllowed(config: Config, pod: Pod, name: string, namespace: string): void {
  const allowed = [pod.namespace, ...config.globalNamespaces.split(',').map((one) => one.trim())];
  if (config.namespaceIsolation && !allowed.includes(namespace))
    throw new Error(
      `The pod asks for network "${name}" of namespace "${namespace}", but "namespaceIsolation" allows it only those of ${quoted(allowed)}. Use one of these, or add the namespace to "globalNamespaces"`,
    );
}

/** The default network that the pod's annotation names. @throws Error when the pod may not have it. */
async function exchangedDefault(
  call: MultusCall,
  api: PodApi | undefined,
  pod: Pod,
  annotation: string | undefined,
): Promise<Choice | undefined> {
  if (!annotation) return undefined;
  const where = `Annotation "${defaultAnnotation}"`;
  const [wanted, ...others] = parseSelections(annotation, where);
  if (!wanted || others.length > 0) throw new Error(`${where} must name exactly one network`);
  const { config } = call;
  if (wanted.namespace && wanted.namespace !== config.multusNamespace)
    requireAllowed(config, pod, wanted.name, wanted.namespace);
  if (api) return await requestedNetwork(call, api, directories(config), wanted, config.multusNamespace);
  return { network: networkNamed(directories(config), wanted.name), selection: wanted };
}

function quoted(names: readonly string[]): string {
  return [...new Set(names)].map((name) => `"${name}"`).join(', ');
}
