/** What is left when pods end, and when the agent does. */

import { files, iptablesSave, links } from '../../../test/support/observe.ts';
import type { Claims } from '../../claims.ts';
import { podsOf, reservedAddresses } from '../api.ts';
import { ask, eventually, onNodes } from '../clients.ts';
import { applySuite, type Cluster, patience } from '../cluster.ts';

export async function withoutAgent(cluster: Cluster, claims: Claims): Promise<void> {
  const { plane } = cluster;
  claims.heading('10. Without the agent');
  await plane.kubectl(['--namespace=kube-system', 'delete', 'daemonset', 'cni-plugins', '--wait', patience]);
  for (const { name, node } of cluster.nodes)
    await claims.check(
      `${name}: with the DaemonSet, the agent has gone`,
      eventually(async () => (await node.tryRun(['/opt/cni/bin/cni', 'agent', 'status'])).exit === 1),
    );
  await plane.kubectl(['rollout', 'restart', 'deployment/web']);
  await plane.kubectl(['rollout', 'status', 'deployment/web', patience]);
  for (const { name, address } of await podsOf(cluster, 'web'))
    for (const node of onNodes(cluster))
      await claims.check(
        `${node.name} reaches pod ${name}, which the plugins have connected by themselves`,
        ask(node, `${address}:8080`).then((answer) => answer?.pod === name),
      );
  await applySuite(plane);
  for (const { name, node } of cluster.nodes)
    await claims.check(
      `${name}: the DaemonSet's next agent answers`,
      node.tryRun(['/opt/cni/bin/cni', 'agent', 'status']).then(({ exit }) => exit === 0),
    );
}

export async function leftovers(cluster: Cluster, claims: Claims): Promise<void> {
  const { plane } = cluster;
  claims.heading('11. Everything is deleted');
  for (const kinds of ['ingresses', 'deployments,statefulsets,daemonsets,pods'])
    await plane.kubectl(['delete', kinds, '--all', '--wait', patience]);
  for (const workload of ['deployment/dns', 'daemonset/ingress'])
    await plane.kubectl(['--namespace=kube-system', 'delete', workload, '--wait', patience]);
  for (const machine of cluster.nodes) {
    const { name, node } = machine;
    await claims.check(
      `${name}: no address is reserved`,
      eventually(async () => reservedAddresses(machine).length === 0),
    );
    await claims.check(
      `${name}: no interface of a pod is left`,
      eventually(async () => !(await links(node)).some(({ ifname }) => ifname.startsWith('veth'))),
    );
    await claims.check(
      `${name}: no rule leads to a pod`,
      eventually(
        async () => !(await iptablesSave(node)).some((line) => /--to-destination 10\.244\./.test(line)),
      ),
    );
    const attachments = async () => Object.keys(files(node, '/var/lib/cni/flannel'));
    await claims.check(
      `${name}: flannel keeps no configuration of a delegate`,
      eventually(async () => (await attachments()).length === 0),
    );
  }
}
