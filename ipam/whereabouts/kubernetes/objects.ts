/** The objects of whereabouts in one namespace of a cluster. */

import { type KubernetesClient, kubernetesClient } from '../../../lib/kubernetes/client.ts';
import { readKubeconfig } from '../../../lib/kubernetes/kubeconfig.ts';
import { IpPools } from './ip-pools.ts';
import { Reservations } from './reservations.ts';

/** Where whereabouts keeps its objects unless the kubeconfig names another namespace. */
const usualNamespace = 'kube-system';

export interface Objects {
  readonly client: KubernetesClient;
  readonly namespace: string;
  readonly pools: IpPools;
  readonly reservations: Reservations;
}

/**
 * Prepares requests for them.
 * @param timeoutMs how long a request may take, if not as long as usual.
 * @throws CniError as {@link readKubeconfig}.
 */
export function openObjects(kubeconfig: string, timeoutMs: number | undefined): Objects {
  const cluster = readKubeconfig(kubeconfig);
  const client = kubernetesClient(cluster, { timeoutMs });
  const namespace = cluster.namespace ?? usualNamespace;
  const pools = new IpPools(client, namespace, kubeconfig);
  return { client, namespace, pools, reservations: new Reservations(client, namespace, pools) };
}
