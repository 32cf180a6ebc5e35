/** genie: attaches a pod to the networks that its annotation names, with CNI-Genie's configuration keys. */

import { basename } from 'node:path';
import type { Call } from '../lib/cni/call.ts';
import { type InferShape, object, string, withDefault } from '../lib/cni/schema.ts';
import { type Choice, networkNamed } from '../lib/networks/choice.ts';
import { configFiles, type NetworkList, readNetwork } from '../lib/networks/conflist.ts';
import { requestedNetwork } from '../lib/networks/definition.ts';
import type { AddedDelegate } from '../lib/networks/delegates.ts';
import { directoryOf, runtimeNetworks, usualDirectory } from '../lib/networks/directories.ts';
import { comparableNetworks, leastLoaded } from '../lib/networks/load.ts';
import { annotationsOf, genieAnnotation, networksAnnotation, podOf } from '../lib/networks/pod.ts';
import type { PodApi } from '../lib/networks/pod-api.ts';
import { parseSelections, type Selection, selectionOf } from '../lib/networks/selection.ts';
import { defineSeveralNetworks, type Plan } from '../lib/networks/several.ts';
import { networkStatus, statusAnnotation } from '../lib/networks/status.ts';

/** Reports the addresses of a pod with several networks. */
const addressesAnnotation = 'multi-ip-preferences';
/** Names CNI-Genie's LogicalNetworks, for a pod whose own annotation is blank. */
const logicalAnnotation = 'networks';

const config = {
  kubernetes: object(
    {
      kubeconfig: string({
        description:
          'File that says where the API is: the annotations of pods and the definitions of networks are read from it, and what pods have got is written.',
      }),
    },
    { description: 'The Kubernetes API.' },
  ),
  default_plugin: string({
    description:
      'Networks of a pod that names none, as in "weave,flannel"; the first is its default network. When left out, it is the network of the first file in "confDir".',
  }),
  confDir: withDefault(string({ description: 'Directory of the networks.' }), runtimeNetworks),
  cniDir: withDefault(
    string({ description: 'Directory in which the networks of each container are saved.' }),
    usualDirectory('genie'),
  ),
};

type GenieCall = Call<InferShape<typeof config>>;

export const plugin = defineSeveralNetworks({
  name: 'genie',
  summary: 'Attaches a pod to the networks that its annotation "cni" names.',
  config,

  validate({ default_plugin: networks = '' }) {
    parseSelections(networks, '"default_plugin"');
  },

  explain: ({ kubernetes, default_plugin: networks, confDir, cniDir }) => [
    kubernetes?.kubeconfig
      ? `Reads the pod and the definitions of its networks from the Kubernetes API of "${kubernetes.kubeconfig}", and writes the addresses of the pod to its annotations`
      : '',
    `Attaches the pod to the networks of ${confDir} that its annotation "${genieAnnotation}" names: the first that asks for no interface gets that of the call, and the default route`,
    `Attaches a pod with the annotation "${networksAnnotation}" to the network of the first file in ${confDir}, and to those that the annotation names`,
    `Attaches a pod that names none to ${networks ? `"${networks}"` : `the network of the first file in ${confDir}`}`,
    `Remembers the networks of each container in ${cniDir}`,
  ],

  directoryOf: ({ cniDir }) => directoryOf('genie', cniDir),
  kubeconfigOf: ({ kubernetes }) => kubernetes?.kubeconfig,
  needsAnnotations: false,
  nameInterfaces,

  async choose(call, api) {
    const annotations = api ? await api.annotations() : annotationsOf(call);
    const {
      [genieAnnotation]: own,
      [networksAnnotation]: standard = '',
      [logicalAnnotation]: logical,
    } = annotations;
    const given = parseSelections(podOf(call).networks, 'CNI_ARGS: NETWORKS');
    const wanted = parseSelections(standard, `Annotation "${networksAnnotation}"`);
    if (wanted.length > 0) return await standardPlan(call, api, wanted, given);
    const asked = [...parseSelections(own ?? '', `Annotation "${genieAnnotation}"`), ...given];
    if (asked.length > 0) return planOf(asked.map((one) => selected(call, one)));
    if (own === undefined) return planOf(defaults(call));
    if (logical)
      throw new Error(
        `Annotation "${logicalAnnotation}" asks for the LogicalNetworks "${logical}", which are not supported. Name the networks in annotation "${genieAnnotation}" instead`,
      );
    return await planByLoad(call);
  },

  required: defaults,
});

/**
 * The runtime's interface (usually "eth0"), then "eth1" and so on: a network for which no name is requested
 * gets the next free one. Source: getIntfName of CNI-Genie's genie-controller.
 */
function nameInterfaces(requested: readonly string[], own: string): string[] {
  const taken = new Set(requested);
  let number = 0;
  const next = () => (number++ === 0 ? own : `eth${number - 1}`);
  return requested.map((name) => {
    let free = name || next();
    while (name === '' && taken.has(free)) free = next();
    taken.add(free);
    return free;
  });
}

function planOf(choices: readonly Choice[]): Plan {
  const addressesOf = (added: readonly AddedDelegate[]) => ({ [addressesAnnotation]: addresses(added) });
  return { choices, annotationsFor: (added) => (added.length > 1 ? addressesOf(added) : {}) };
}

/** The first address of each network, as in "ip1" of `{"multi_entry":1,"ips":{"ip1":{...}}}`. */
function addresses(added: readonly AddedDelegate[]): string {
  const entries = added.flatMap(({ ifname, result: { ips } }) =>
    ips[0] ? [{ ip: `${ips[0].address.address}`, interface: ifname }] : [],
  );
  const ips = Object.fromEntries(entries.map((entry, i) => [`ip${i + 1}`, entry]));
  return JSON.stringify({ multi_entry: entries.length, ips });
}

/** The cluster's network, and those of the standard annotation. @param given networks on disk. */
async function standardPlan(
  call: GenieCall,
  api: PodApi | undefined,
  wanted: readonly Selection[],
  given: readonly Selection[],
): Promise<Plan> {
  const onDisk = (one: Selection) => selected(call, one);
  const find = async (one: Selection) =>
    api ? await requestedNetwork(call, api, [call.config.confDir], one, api.pod.namespace) : onDisk(one);
  return {
    choices: [clusterNetwork(call), ...(await Promise.all(wanted.map(find))), ...given.map(onDisk)],
    annotationsFor: (added) => ({ [statusAnnotation]: networkStatus(added) }),
  };
}

/** The least loaded network on disk; among equals, a default one. */
async function planByLoad(call: GenieCall): Promise<Plan> {
  const networks = [...defaults(call).map((one) => one.network), ...usableNetworks(call)];
  const network = (await leastLoaded(networks))!;
  const alternatives = comparableNetworks(networks).filter(({ name }) => name !== network.name);
  return {
    choices: [{ network }],
    alternatives: alternatives.map((one) => ({ network: one })),
    annotationsFor: () => ({ [genieAnnotation]: network.name }),
  };
}

/** The networks that a pod can be attached to, in the order of their file names. */
function usableNetworks({ config }: GenieCall): NetworkList[] {
  return configFiles(config.confDir, ['.conf', '.conflist']).flatMap(readable);
}

/**
 * The network that a pod would get without this plugin: that of the first file. It gets the interface of the
 * call. Source: getClusterNetwork of CNI-Genie's genie-netattachdef-controller.
 * @throws Error when there is none.
 */
function clusterNetwork(call: GenieCall): Choice {
  const [network] = usableNetworks(call);
  if (!network)
    throw new Error(
      `Directory "${call.config.confDir}" has no network that a pod can be attached to by default. Put one there`,
    );
  return { network, selection: selectionOf(network.name, call.ifname) };
}

/** The network in a file; none if a pod cannot be attached to it, or it leads back to this plugin. */
function readable(file: string): NetworkList[] {
  try {
    const network = readNetwork(file);
    return network.plugins.some(({ type }) => type === 'genie' || type === 'multus') ? [] : [network];
  } catch {
    return [];
  }
}

/** The networks of a pod that names none. @throws Error when there are none. */
function defaults(call: GenieCall): Choice[] {
  const networks = parseSelections(call.config.default_plugin ?? '', '"default_plugin"');
  return networks.length > 0 ? networks.map((one) => selected(call, one)) : [clusterNetwork(call)];
}

function selected({ config }: GenieCall, selection: Selection): Choice {
  const { name } = selection;
  const isWanted = (network: NetworkList) => network.name === name || fileNameOf(network) === name;
  return { network: networkNamed([config.confDir], name, isWanted), selection };
}

/** CNI-Genie knows a network by its file name after the number, as "weave" of "10-weave.conflist". */
function fileNameOf({ file }: NetworkList): string {
  return basename(file)
    .replace(/\.[^.]*$/, '')
    .replace(/^[^-]*-/, '');
}
