/** Nodes and pods, and that they reach each other and the world outside. */

import type { Teardown } from '../../../test/support/host.ts';
import { serve } from '../../../test/support/observe.ts';
import type { Claims } from '../../claims.ts';
import { podsOf, reservedAddresses, show } from '../api.ts';
import { ask, inPod, onNodes } from '../clients.ts';
import { applyManifest, type Cluster, patience } from '../cluster.ts';

export async function nodes(cluster: Cluster, claims: Claims): Promise<void> {
  const { plane, ranges } = cluster;
  claims.heading('1. Nodes');
  await show(cluster, claims, 'get nodes --output=wide');
  await show(cluster, claims, 'get pods --all-namespaces --output=wide');
  await claims.check(
    "each node has a range of pods' addresses of its own",
    Promise.resolve(new Set(ranges.values()).size === 2),
  );
  const ready = plane.kubectl([
    ...['--namespace=kube-system', 'get', 'daemonset', 'cni-plugins'],
    '--output=jsonpath={.status.numberReady} {.status.desiredNumberScheduled}',
  ]);
  await claims.check(
    "the suite's DaemonSet is ready on both",
    ready.then((text) => text === '2 2'),
  );
  for (const { name, node } of cluster.nodes) {
    const status = node.run(['/opt/cni/bin/cni', 'agent', 'status']);
    await claims.check(
      `${name}: its agent has done each ADD of flannel, and left none to the executable`,
      status.then(
        (text) => /^flannel +ADD +[1-9]\d* +0 /m.test(text) && / 0 left to the executable/.test(text),
      ),
    );
  }
}

export async function pods(cluster: Cluster, claims: Claims, t: Teardown): Promise<void> {
  const { plane, ranges, outside } = cluster;
  claims.heading('2. Pods');
  await applyManifest(plane, 'web.yaml');
  for (const workload of ['deployment/web', 'statefulset/member', 'daemonset/client'])
    await plane.kubectl(['rollout', 'status', workload, patience]);
  await plane.kubectl(['wait', 'pod/published', '--for=condition=Ready', patience]);
  await show(cluster, claims, 'get pods --output=wide');
  const web = await podsOf(cluster, 'web');
  const clients = await podsOf(cluster, 'client');
  const all = [...web, ...clients, ...(await podsOf(cluster, 'member'))];
  await claims.check(
    "each pod's address is one of its node's range, and no two have the same",
    Promise.resolve(
      all.every(({ address, node }) => address.startsWith(ranges.get(node)!.replace('0/24', ''))) &&
        new Set(all.map(({ address }) => address)).size === all.length,
    ),
  );
  for (const machine of cluster.nodes)
    await claims.check(
      `${machine.name} has reserved the addresses of its pods`,
      Promise.resolve(
        all.every(
          ({ node, address }) => (node === machine.name) === reservedAddresses(machine).includes(address),
        ),
      ),
    );
  for (const client of clients)
    for (const server of web)
      await claims.check(
        `a pod on ${client.node} reaches one on ${server.node}, which sees the pod's own address`,
        ask(inPod(cluster, client), `${server.address}:8080`).then(
          (answer) => answer?.pod === server.name && answer.peer === client.address,
        ),
      );
  for (const node of onNodes(cluster))
    for (const server of web)
      await claims.check(
        `${node.name} itself reaches a pod on ${server.node}`,
        ask(node, `${server.address}:8080`).then((answer) => answer?.pod === server.name),
      );
  await serve(t, outside, 'tcp', 7000, 'outside');
  for (const client of clients) {
    const node = cluster.nodes.find(({ name }) => name === client.node)!;
    const answer = inPod(cluster, client).run(['sh', '-c', 'echo hello | nc -w 5 192.0.2.1 7000']);
    await claims.check(
      `a pod on ${client.node} reaches the machine outside, which sees the node's address`,
      answer.then(({ stdout }) => (JSON.parse(stdout) as { peer: string }).peer === node.address),
    );
  }
  await claims.check(
    'kubectl exec runs a program in a pod, whose interface eth0 has the address that the API tells',
    inPod(cluster, web[0]!)
      .run(['ip', '-o', '-4', 'address', 'show', 'eth0'])
      .then(({ stdout }) => stdout.includes(` ${web[0]!.address}/24 `)),
  );
}
