/** What kubectl tells about the objects in the exercises. */

import { basename } from 'node:path';
import { files } from '../../test/support/observe.ts';
import type { Claims } from '../claims.ts';
import type { Cluster } from './cluster.ts';
import type { Machine } from './machine.ts';

/** A pod, according to the API. */
export interface PodInfo {
  readonly name: string;
  readonly address: string;
  readonly node: string;
}

/** The pods with a label, except those being deleted. */
export async function podsOf({ plane }: Cluster, app: string): Promise<PodInfo[]> {
  const { items } = JSON.parse(
    await plane.kubectl(['get', 'pods', `--selector=app=${app}`, '--output=json']),
  ) as {
    items: {
      metadata: { name: string; deletionTimestamp?: string };
      spec: { nodeName?: string };
      status: { podIP?: string };
    }[];
  };
  return items
    .filter(({ metadata }) => !metadata.deletionTimestamp)
    .map(({ metadata, spec, status }) => ({
      name: metadata.name,
      address: status.podIP ?? '',
      node: spec.nodeName ?? '',
    }));
}

/** Whether the Endpoints of a Service are exactly those pods. */
export async function endpointsAre(
  { plane }: Cluster,
  service: string,
  pods: readonly PodInfo[],
): Promise<boolean> {
  const get = ['get', 'endpoints', service, '--output=jsonpath={.subsets[*].addresses[*].ip}'];
  const found = (await plane.kubectl(get)).split(' ').filter((address) => address !== '');
  return String(found.sort()) === String(pods.map(({ address }) => address).sort());
}

/** The address of a Service. */
export function clusterIp({ plane }: Cluster, service: string): Promise<string> {
  return plane.kubectl(['get', 'service', service, '--output=jsonpath={.spec.clusterIP}']);
}

/** Runs kubectl and shows what it says. @param line its arguments, none of which contains a space. */
export async function show({ plane }: Cluster, claims: Claims, line: string): Promise<void> {
  claims.show(`$ kubectl ${line}`, await plane.kubectl(line.split(' ')));
}

/** The addresses that a node has reserved for its pods. Source: host-local's files, one for each address. */
export function reservedAddresses({ node }: Machine): string[] {
  const names = Object.keys(files(node, '/var/lib/cni/networks/cbr0')).map((path) => basename(path));
  return names.filter((name) => /^[0-9.]+$/.test(name));
}
