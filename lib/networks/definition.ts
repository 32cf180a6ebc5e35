/** Turns a NetworkAttachmentDefinition of the Kubernetes API into a network, with a device if it has any. */

import type { Call } from '../cni/call.ts';
import { parseJson } from '../cni/json.ts';
import { isObject } from '../object.ts';
import { type Choice, inlineNetwork, networkNamed } from './choice.ts';
import { ConfigError, type NetworkList } from './conflist.ts';
import type { Definition, PodApi } from './pod-api.ts';
import type { Selection } from './selection.ts';

/**
 * Chooses the network of a definition, if there is one.
 * @param directories where networks are looked for.
 * @throws KubernetesError; ConfigError when it cannot be used.
 */
export async function definedNetwork(
  call: Pick<Call, 'config'>,
  api: PodApi,
  directories: readonly string[],
  { namespace, name }: { namespace: string; name: string },
): Promise<Choice | undefined> {
  const definition = await api.definition(namespace, name);
  if (!definition) return undefined;
  const { resourceName } = definition;
  return { network: networkOf(definition, call, directories), label: `${namespace}/${name}`, resourceName };
}

/**
 * As {@link definedNetwork}, for one that a pod asks for by name.
 * @param namespace used if the pod gives none.
 * @throws Error when there is none.
 */
export async function requestedNetwork(
  call: Pick<Call, 'config'>,
  api: PodApi,
  directories: readonly string[],
  selection: Selection,
  namespace: string,
): Promise<Choice> {
  const which = { namespace: selection.namespace || namespace, name: selection.name };
  const choice = await definedNetwork(call, api, directories, which);
  if (choice) return { ...choice, selection };
  throw new Error(
    `The pod asks for NetworkAttachmentDefinition "${which.namespace}/${which.name}", which does not exist at the Kubernetes API. Create it, or correct the pod's annotation`,
  );
}

/**
 * The network that a definition stands for. If the definition has no configuration, it is the network of that
 * name on disk; if the configuration has no name, the definition's is used.
 * @throws ConfigError
 */
function networkOf(
  { namespace, name, config }: Definition,
  call: Pick<Call, 'config'>,
  directories: readonly string[],
): NetworkList {
  const what = `NetworkAttachmentDefinition ${namespace}/${name}`;
  if (config === '') return networkNamed(directories, name);
  let value: unknown;
  try {
    value = parseJson(config);
  } catch (error) {
    throw new ConfigError(
      '',
      `"spec.config" of ${what} is not JSON. Correct it with "kubectl edit": ${(error as Error).message}`,
    );
  }
  return inlineNetwork(isObject(value) ? { ...value, name: value.name || name } : value, what, call);
}
