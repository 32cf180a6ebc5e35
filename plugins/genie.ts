/** genie: attaches a pod to the networks that its annotation names, with the keys of CNI-Genie. */

import { basename } from 'node:path';
import type { Call } from '../lib/cni/call.ts';
import { type InferShape, string, withDefault } from '../lib/cni/schema.ts';
import { annotationsOf, asDelegates, type Choice, networkNamed } from '../lib/networks/choice.ts';
import type { NetworkList } from '../lib/networks/conflist.ts';
import { podOf } from '../lib/networks/pod.ts';
import { parseSelections, type Selection } from '../lib/networks/selection.ts';
import { defineSeveralNetworks } from '../lib/networks/several.ts';

const ownAnnotation = 'cni';
const networksAnnotation = 'k8s.v1.cni.cncf.io/networks';

const config = {
  default_plugin: string({
    description:
      'Networks of a pod that names none, as in "weave,flannel"; the first is its default network.',
  }),
  confDir: withDefault(string({ description: 'Directory of the networks.' }), '/etc/cni/net.d'),
  cniDir: withDefault(
    string({ description: 'Directory in which the networks of each container are saved.' }),
    '/var/lib/cni/genie',
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

  explain: ({ default_plugin: networks, confDir, cniDir }) => [
    `Attaches the pod to the networks of ${confDir} that its annotation "${ownAnnotation}" names, the first of which gets the interface of the call and the default route`,
    networks ? `Attaches a pod that names none to "${networks}"` : '',
    `Remembers the networks of each container in ${cniDir}`,
  ],

  directoryOf: ({ cniDir }) => cniDir,

  choose(call) {
    const annotations = annotationsOf(call);
    const asked = [
      ...parseSelections(annotations[ownAnnotation] ?? '', `Annotation "${ownAnnotation}"`),
      ...parseSelections(podOf(call).networks, 'CNI_ARGS: NETWORKS'),
    ];
    const standard = annotations[networksAnnotation] ?? '';
    // A blank annotation leaves the choice to the standard one.
    const chosen =
      asked.length === 0 && ownAnnotation in annotations
        ? parseSelections(standard, `Annotation "${networksAnnotation}"`)
        : asked;
    const choices = chosen.length > 0 ? chosen.map((one) => selected(call, one)) : defaults(call);
    return asDelegates(call, choices, (index) => `eth${index}`);
  },

  required: (call) => (call.config.default_plugin ? defaults(call).map(({ network }) => network) : []),
});

function defaults(call: GenieCall): Choice[] {
  const networks = parseSelections(call.config.default_plugin ?? '', '"default_plugin"');
  if (networks.length === 0)
    throw new Error(
      `The pod has no annotation "${ownAnnotation}", and the configuration no "default_plugin". Set either to the names of networks`,
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
