/** The cluster as a whole: its machines, and the order in which everything is started. */

import { mkdirSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import type { Host, Teardown } from '../../test/support/host.ts';
import { ControlPlane } from './control-plane.ts';
import { connectPods } from './flannel.ts';
import { makeImages } from './images.ts';
import { type Machine, makeMachine, makeWire } from './machine.ts';
import { startNode } from './node.ts';

const root = join(import.meta.dirname, '../..');
const manifests = join(import.meta.dirname, 'manifests');

/** How long kubectl waits for pods, which may take long on a busy machine. */
export const patience = '--timeout=360s';

export interface Cluster {
  /** A machine outside the cluster, on the same wire. */
  readonly outside: Host;
  readonly plane: ControlPlane;
  readonly nodes: readonly Machine[];
  /** Each node's range of pod addresses, such as 10.244.0.0/24, by the node's name. */
  readonly ranges: ReadonlyMap<string, string>;
}

/**
 * Starts a cluster with the suite's DaemonSet, DNS and an Ingress proxy.
 * @param say is told what is about to be done.
 */
export async function startCluster(t: Teardown, say: (step: string) => void): Promise<Cluster> {
  const outside = await makeWire(t);
  const control = await makeMachine(t, outside, 'control', '192.0.2.10');
  const nodes = [
    await makeMachine(t, outside, 'node1', '192.0.2.11'),
    await makeMachine(t, outside, 'node2', '192.0.2.12'),
  ];
  say('Starting etcd, the API server, the controllers and the scheduler');
  const plane = await ControlPlane.start(control);

  say('Making the images of the pods');
  mkdirSync(join(root, 'build/kubernetes'), { recursive: true });
  const directory = mkdtempSync(join(root, 'build/kubernetes/images-'));
  try {
    const images = await makeImages(control, directory);
    say('Starting containerd, the kubelet and kube-proxy on both nodes');
    await Promise.all(nodes.map((node) => startNode(node, plane, images)));
  } finally {
    rmSync(directory, { recursive: true });
  }

  say('Having the DaemonSet install the plugins and run the agent');
  await applySuite(plane);
  say('Connecting the nodes as flanneld does');
  const ranges = await connectPods(plane, nodes);
  for (const { name } of nodes)
    await plane.kubectl(['wait', `node/${name}`, '--for=condition=Ready', patience]);

  say('Starting DNS and the Ingress proxy');
  await applyManifest(plane, 'dns.yaml');
  await applyManifest(plane, 'ingress.yaml');
  for (const workload of ['deployment/dns', 'daemonset/ingress'])
    await plane.kubectl(['--namespace=kube-system', 'rollout', 'status', workload, patience]);
  return { outside, plane, nodes, ranges };
}

/** Applies conf/kubernetes/daemonset.yaml as it is, and waits for the agents. */
export async function applySuite(plane: ControlPlane): Promise<void> {
  const file = join(root, 'conf/kubernetes/daemonset.yaml');
  // This Kubernetes does not know the grace period of a probe, which came with 1.21, and ignores it.
  await plane.kubectl(['apply', '--validate=false', `--filename=${file}`]);
  await plane.kubectl(['--namespace=kube-system', 'rollout', 'status', 'daemonset/cni-plugins', patience]);
}

/** Applies a file of manifests/. */
export async function applyManifest(plane: ControlPlane, name: string): Promise<void> {
  await plane.kubectl(['apply', '--filename=-'], readFileSync(join(manifests, name), 'utf8'));
}
