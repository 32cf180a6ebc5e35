/** The pod that a call is for, as the runtime describes it. */

import type { Call } from '../cni/call.ts';
import { parseArgs } from '../cni/invocation.ts';
import { object, record, string } from '../cni/schema.ts';

/** The capability with which containerd passes a pod's annotations. */
const annotationsCapability = 'io.kubernetes.cri.pod-annotations';

/** Capability arguments of a plugin that serves pods. */
const podRuntimeConfig = object({
  [annotationsCapability]: record(string(), { description: 'The annotations of the pod.' }),
});

/** A pod. What the runtime does not tell is "". */
export interface Pod {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** The networks that whoever runs the runtime asks for, in the short form. */
  readonly networks: string;
}

const variables = ['K8S_POD_NAMESPACE', 'K8S_POD_NAME', 'K8S_POD_UID', 'NETWORKS'] as const;

/** Reads the pod from CNI_ARGS. @throws Error for what is not NAME=VALUE pairs. */
export function podOf({ context }: Call): Pod {
  const { args } = context.invocation;
  const values = parseArgs(args === '' ? 'IgnoreUnknown=1' : `${args};IgnoreUnknown=1`, variables);
  return {
    namespace: values.K8S_POD_NAMESPACE ?? '',
    name: values.K8S_POD_NAME ?? '',
    uid: values.K8S_POD_UID ?? '',
    networks: values.NETWORKS ?? '',
  };
}

/** The pod's annotations as the runtime passes them, with "capabilities" that say so. */
export function annotationsOf(call: Call): Readonly<Record<string, string>> {
  const { runtimeConfig } = call.config;
  if (runtimeConfig === undefined) return {};
  return podRuntimeConfig.decode(runtimeConfig, 'runtimeConfig')[annotationsCapability] ?? {};
}

/** Variables of CNI_ARGS that are meant for the pod's first interface, or for the plugin that delegates. */
const ofFirst = new Set(['IP', 'MAC', 'GATEWAY']);

/**
 * CNI_ARGS for a delegate.
 * @param given to the plugin that delegates.
 * @param own of the delegate; undefined for the pod's default network, which gets all that is given.
 */
export function delegateArgs(given: string, own?: Readonly<Record<string, string>>): string {
  const pairs = given.split(';').filter((pair) => {
    const [name = ''] = pair.split('=');
    return name !== '' && name !== 'NETWORKS' && !(own && (ofFirst.has(name) || name === 'IgnoreUnknown'));
  });
  if (!own) return pairs.join(';');
  const added = Object.entries(own).map((pair) => pair.join('='));
  return ['IgnoreUnknown=1', ...pairs, ...added].join(';');
}
