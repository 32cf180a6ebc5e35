/** genie: attaches a pod to the networks that its annotation names, with the keys of CNI-Genie. */

import { basename } from 'node:path';
import type { Call } from '../lib/cni/call.ts';
import { type InferShape, object, string, withDefault } from '../lib/cni/schema.ts';
import { type Choice, networkNamed } from '../lib/networks/choice.ts';
import { type NetworkList, networkFiles, readNetwork } from '../lib/networks/conflist.ts';
import { requestedNetwork } from '../lib/networks/definition.ts';
import type { AddedDelegate } from '../lib/networks/delegates.ts';
import { directoryOf, runtimeNetworks, usualDirectory } from '../lib/networks/directories.ts';
import { comparableNetworks, leastLoaded } from '../lib/networks/load.ts';
import { annotationsOf, genieAnnotation, networksAnnotation, podOf } from '../lib/networks/pod.ts';
import type { PodApi } from '../lib/networks/pod-api.ts';
import { parseSelections, type Selection } from '../lib/networks/selection.ts';
import { defineSeveralNetworks, type Plan } from '../lib/networks/several.ts';
import { networkStatus, statusAnnotation } from '../lib/networks/status.ts';

/** Tells the addresses of a pod with several networks. */
const addressesAnnotation = 'multi-ip-preferences';

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
      'Networks of a pod that names none, as in "weave,flannel"; the first is its default network.',
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
    `Attaches the pod to the networks of ${confDir} that its annotation "${genieAnnotation}" names, the first of which gets the interface of the call and the default route`,
    networks ? `Attaches a pod that names none to "${networks}"` : '',
    `Remembers the networks of each container in ${cniDir}`,
  ],

  directoryOf: ({ cniDir }) => directoryOf('genie', cniDir),
  kubeconfigOf: ({ kubernetes }) => kubernetes?.kubeconfig,
  nameOf: (index) => `eth${index}`,
  needsAnnotations: false,

  async choose(call, api) {
    const annotations = api ? await api.annotations() : annotationsOf(call);
    const { [genieAnnotation]: own, [networksAnnotation]: standard = '' } = annotations;
    const asked = [
      ...parseSelections(own ?? '', `Annotation "${genieAnnotation}"`),
      ...parseSelections(podOf(call).networks, 'CNI_ARGS: NETWORKS'),
    ];
    if (asked.length > 0) return planOf(asked.map((one) => selected(call, one)));
    if (own === undefined) return planOf(defaults(call));
    // A blank annotation leaves the choice to the standard one, or else to the plugin.
    const wanted = parseSelections(standard, `Annotation "${networksAnnotation}"`);
    return wanted.length > 0 ? await standardPlan(call, api, wanted) : await planByLoad(call);
  },

  required: (call) => (call.config.default_plugin ? defaults(call) : []),
});

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

/** The networks of the standard annotation. */
async function standardPlan(
  call: GenieCall,
  api: PodApi | undefined,
  wanted: readonly Selection[],
): Promise<Plan> {
  const find = async (one: Selection) =>
    api
      ? await requestedNetwork(call, api, [call.config.confDir], one, api.pod.namespace)
      : selected(call, one);
  return {
    choices: await Promise.all(wanted.map(find)),
    annotationsFor: (added) => ({ [statusAnnotation]: networkStatus(added) }),
  };
}

/** The one network on disk that has the least to carry; of equals, that which is meant by default. */
async function planByLoad(call: GenieCall): Promise<Plan> {
  const preferred = call.config.default_plugin ? defaults(call) : [];
  const others = networkFiles(call.config.confDir).flatMap((file) => readable(file));
  const networks = [...preferred.map((one) => one.network), ...others];
  const network = await leastLoaded(networks);
  if (!network) return planOf(defaults(call));
  const alternatives = comparableNetworks(networks).filter(({ name }) => name !== network.name);
  return {
    choices: [{ network }],
    alternatives: alternatives.map((one) => ({ network: one })),
    annotationsFor: () => ({ [genieAnnotation]: network.name }),
  };
}

/** A network that a pod can be attached to; none for what cannot be used, or leads back to this plugin. */
function readable(file: string): NetworkList[] {
  try {
    const network = readNetwork(file);
    return network.plugins.some(({ type }) => type === 'genie' || type === 'multus') ? [] : [network];
  } catch {
    return [];
  }
}

function defaults(call: GenieCall): Choice[] {
  const networks = parseSelections(call.config.default_plugin ?? '', '"default_plugin"');
  if (networks.length === 0)
    throw new Error(
      `The pod has no annotation "${genieAnnotation}", and the configuration no "default_plugin". Set either to the names of networks`,
    );
  return networks.map((one) => selected(call, one));
}

function selected({ config }: GenieCall, selection: Selection): Choice {
  const { name } = selection;
  const isWanted = (network: NetworkList) => network.name === name || fileNameOf(network) === name;
  return { network: networkNamed([config.confDir], name, isWanted), selection };
}

/** CNI-Genie knows a network by the name of its file after the number, as "weave" of "10-weave.conflist". */
function fileNameOf({ file }: NetworkList): string {
  return basename(file)
    .replace(/\.[^.]*$/, '')
    .replace(/^[^-]*-/, '');
}
