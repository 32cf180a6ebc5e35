/** A host whose pods are objects of the Kubernetes API, with networks on disk and as definitions. */

import type { ExecutionContext } from 'ava';
import { Attachment, attach, type Conflist } from './chain.ts';
import type { Host } from './host.ts';
import { KubeApi } from './kube-api.ts';
import { allowedByManifest } from './kube-kinds.ts';
import { makeHostWithNetworks, several } from './several.ts';

/** What {@link networkStatusOf} gives of each network. */
export interface NetworkStatus {
  readonly name: string;
  readonly interface?: string;
  readonly ips?: readonly string[];
  readonly mac?: string;
  readonly mtu?: number;
  readonly default?: boolean;
  readonly dns?: object;
  readonly gateway?: readonly string[];
  readonly 'device-info'?: object;
}

/** A host and its API. */
export interface Node {
  readonly host: Host;
  readonly api: KubeApi;
  /** The network that the runtime knows. */
  readonly network: Conflist;
}

/**
 * Makes a node whose kubeconfig has the rights that the manifest gives.
 * @param keys of multus, beside "kubeconfig" and "clusterNetwork".
 */
export async function makeNode(t: ExecutionContext, keys: object = {}): Promise<Node> {
  const host = await makeHostWithNetworks(t);
  const api = await KubeApi.start(t, host);
  api.isAllowed = allowedByManifest('multus');
  const kubeconfig = api.kubeconfig();
  return { host, api, network: several('multus', { kubeconfig, clusterNetwork: 'pods', ...keys }) };
}

/** A bridge with addresses of its own, 10.42.`number`.0/24, as in a NetworkAttachmentDefinition. */
export function bridgeConfig(number: number, keys: object = {}): string {
  const ipam = { type: 'host-local', ranges: [[{ subnet: `10.42.${number}.0/24` }]] };
  return JSON.stringify({ cniVersion: '1.1.0', type: 'bridge', bridge: `nad${number}`, ...keys, ipam });
}

/** Creates a NetworkAttachmentDefinition. @param config "" for the network of that name on disk. */
export function define(
  api: KubeApi,
  namespace: string,
  name: string,
  config: string,
  annotations: Record<string, string> = {},
): void {
  api.seed('network-attachment-definitions', {
    ...{ apiVersion: 'k8s.cni.cncf.io/v1', kind: 'NetworkAttachmentDefinition' },
    metadata: { namespace, name, annotations },
    spec: config === '' ? {} : { config },
  });
}

/** Creates a pod. @returns CNI_ARGS that name it, as a runtime passes them. */
export function createPod(
  api: KubeApi,
  annotations: Record<string, string>,
  { namespace = 'shop', name = 'web' } = {},
): string {
  const pod = api.seed('pods', {
    ...{ apiVersion: 'v1', kind: 'Pod', spec: { nodeName: 'node-1' } },
    metadata: { namespace, name, annotations },
  });
  return argsFor(namespace, name, `${pod.metadata.uid}`);
}

/** CNI_ARGS of a pod. */
export function argsFor(namespace: string, name: string, uid: string): string {
  return `IgnoreUnknown=1;K8S_POD_NAMESPACE=${namespace};K8S_POD_NAME=${name};K8S_POD_UID=${uid}`;
}

/** Annotations of a pod as the API has them. */
export function annotationsOf(api: KubeApi, namespace = 'shop', name = 'web'): Record<string, string> {
  return api.of('pods').get(namespace, name).metadata.annotations ?? {};
}

/** The status of a pod's networks, as published in the API. */
export function networkStatusOf(api: KubeApi, namespace = 'shop', name = 'web'): NetworkStatus[] {
  const text = annotationsOf(api, namespace, name)['k8s.v1.cni.cncf.io/network-status'];
  return text === undefined ? [] : (JSON.parse(text) as NetworkStatus[]);
}

/** Creates a pod, and attaches it. */
export async function attachPod(
  { host, api, network }: Node,
  networks: string,
  which?: { namespace?: string; name?: string },
): Promise<Attachment> {
  const args = createPod(api, networks ? { 'k8s.v1.cni.cncf.io/networks': networks } : {}, which);
  return await attach(host, network, { args });
}

/** Creates a pod without calling ADD. */
export async function unattachedPod(
  { host, api, network }: Node,
  networks: string,
  name?: string,
): Promise<Attachment> {
  const args = createPod(api, { 'k8s.v1.cni.cncf.io/networks': networks }, { ...(name && { name }) });
  return new Attachment(host, await host.addPod(), network, { args });
}
