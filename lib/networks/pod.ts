/** The pod that a call is for, as the runtime describes it. */

import type { Call } from '../cni/call.ts';
import { parseArgs } from '../cni/invocation.ts';
import { object, record, string } from '../cni/schema.ts';

/** The networks that a pod asks for, as in the Network Custom Resource Definition De-facto Standard. */
export const networksAnnotation = 'k8s.v1.cni.cncf.io/networks';
/** The default network that a pod asks for, as in Multus. */
export const defaultAnnotation = 'v1.multus-cni.io/default-network';
/** The networks that a pod asks for, as in CNI-Genie. */
export const genieAnnotation = 'cni';

/** The capability with which containerd passes a pod's annotations. */
export const annotationsCapability = 'io.kubernetes.cri.pod-annotations';

/** Capability arguments of a plugin that serves pods. */
const podRuntimeConfig = object({
  [annotationsCapability]: record(string(), { description: 'The annotations of the pod.' }),
});

/** A pod. What the runtime does not tell is "". */
export interface Pod {
  readonly namespace: string;
  readonly name: string;
  readonly uid: string;
  /** The networks that the operator of the runtime asks for, in the short form. */
  readonly networks: string;
}

const variables = ['K8S_POD_NAMESPACE', 'K8S_POD_NAME', 'K8S_POD_UID', 'NETWORKS'] as const;

/** Reads the pod from CNI_ARGS. @throws Error when it is not NAME=VALUE pairs. */
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

/** The pod's annotations as the runtime passes them if "capabilities" asks for them. */
export function annotationsOf(call: Call): Readonly<Record<string, string>> {
  const { runtimeConfig } = call.config;
  if (runtimeConfig === undefined) return {};
  return podRuntimeConfig.decode(runtimeConfig, 'runtimeConfig')[annotationsCapability] ?? {};
}

/** Variables of CNI_ARGS that are meant for the pod's first interface. */
const ofFirst = new Set(['IP', 'MAC', 'GATEWAY']);

/** CNI_ARGS for the pod's default network: all but what is for the plugin that delegates. */
export function firstArgs(given: string): string {
  return pairsOf(given, (name) => name !== 'NETWORKS').join(';');
}

/**
 * CNI_ARGS for a further network of the pod.
 * @param given to the plugin that delegates, or to the first network.
 */
export function furtherArgs(given: string): string {
  return withArgs(pairsOf(firstArgs(given), (name) => !ofFirst.has(name)).join(';'), {});
}

/**
 * CNI_ARGS with more variables, which replace those of the same names. Tells plugins to ignore variables that
 * they do not know.
 */
export function withArgs(given: string, more: Readonly<Record<string, string>>): string {
  const others = pairsOf(given, (name) => name !== 'IgnoreUnknown' && !Object.hasOwn(more, name));
  return ['IgnoreUnknown=1', ...others, ...Object.entries(more).map((pair) => pair.join('='))].join(';');
}

function pairsOf(args: string, isWanted: (name: string) => boolean): string[] {
  return args.split(';').filter((pair) => {
    const [name = ''] = pair.split('=');
    return name !== '' && isWanted(name);
  });
}
