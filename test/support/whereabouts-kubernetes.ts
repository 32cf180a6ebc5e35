/** whereabouts on the nodes of a cluster, with the Kubernetes API. */

import { cpSync } from 'node:fs';
import { type Host, makeHost, Namespace, type Teardown } from './host.ts';
import { KubeApi } from './kube-api.ts';
import { allowedByManifest } from './kube-kinds.ts';
import type { KubeObject } from './kube-objects.ts';
import { type Calling, WhereaboutsCalls } from './whereabouts-calls.ts';

export const apiVersion = 'whereabouts.cni.cncf.io/v1alpha1';

/** Nodes that share a network, and one API. */
export class KubeCluster extends WhereaboutsCalls {
  readonly api: KubeApi;

  constructor(host: Host, api: KubeApi, ipam: object) {
    super(host, { kubernetes: { kubeconfig: api.kubeconfig() }, range: '10.70.0.0/24', ...ipam });
    this.api = api;
    api.isAllowed = allowedByManifest('whereabouts');
  }

  /** Addresses of a pool by their offsets, as whereabouts would read them. */
  allocations(name = '10.70.0.0-24'): Record<string, { id: string; podref: string; ifname?: string }> {
    return this.api.of('ippools').get('kube-system', name).spec!.allocations as never;
  }

  /** Names of the reservations across overlapping ranges. */
  reservations(): string[] {
    return this.api
      .of('overlappingrangeipreservations')
      .list('kube-system')
      .map(({ metadata }) => metadata.name);
  }

  /** Writes a pool as whereabouts does. */
  seedPool(name: string, range: string, allocations: object = {}): KubeObject {
    const metadata = { name, namespace: 'kube-system' };
    return this.api.seed('ippools', { apiVersion, kind: 'IPPool', metadata, spec: { range, allocations } });
  }

  /** Writes a reservation as whereabouts does. */
  seedReservation(name: string, podref: string, ifname = 'eth0'): KubeObject {
    const metadata = { name, namespace: 'kube-system' };
    const kind = 'OverlappingRangeIPReservation';
    return this.api.seed('overlappingrangeipreservations', {
      apiVersion,
      kind,
      metadata,
      spec: { podref, ifname },
    });
  }
}

/** Another node that reaches the API of the first one, and has files of its own. */
export async function anotherNode(t: Teardown, { host }: KubeCluster): Promise<Namespace> {
  const other = await makeHost(t, { mayHaveAgent: false });
  cpSync(host.file('/run/kube-pki'), other.file('/run/kube-pki'), { recursive: true });
  return new Namespace([
    ...['nsenter', `--net=/proc/${host.pid}/ns/net`, `--mount=/proc/${other.pid}/ns/mnt`, '--'],
  ]);
}

/** Makes a cluster with an API of its own. */
export async function kubeClusterOf(t: Teardown, ipam: object = {}): Promise<KubeCluster> {
  const host = await makeHost(t);
  return new KubeCluster(host, await KubeApi.start(t, host), ipam);
}

/** A call for a pod. */
export const pod = (name: string, more: Calling = {}): Calling => ({ pod: name, ...more });
/** The offset of an address in a /24. */
export const offsetOf = (address: string) => address.split('.').at(-1)!;
