/** Several networks per pod, by multus and NetworkAttachmentDefinitions. */

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { files } from '../../../test/support/observe.ts';
import type { Claims } from '../../claims.ts';
import { type PodInfo, podsOf, show } from '../api.ts';
import { ask, eventually, inPod } from '../clients.ts';
import { applyManifest, type Cluster, patience } from '../cluster.ts';
import { collectLost, conflicts } from './gone.ts';

const conf = join(import.meta.dirname, '../../../conf/kubernetes');

/** A network of one plugin. */
export const networkOf = (name: string, plugin: object) => ({ cniVersion: '1.0.0', name, plugins: [plugin] });

/** Its file sorts before conf/40-flannel.conflist, so that containerd uses it. */
const multus = networkOf('multusnet', {
  type: 'multus',
  capabilities: { portMappings: true },
  kubeconfig: '/etc/cni/net.d/multus.d/multus.kubeconfig',
  clusterNetwork: 'cbr0',
});

/** A pod, with its address on the second network. */
interface StoragePod extends PodInfo {
  readonly storage: string;
}

export async function networks(cluster: Cluster, claims: Claims): Promise<void> {
  const { plane, nodes } = cluster;
  claims.heading('9. Several networks');
  for (const plugin of ['multus', 'whereabouts']) await allow(cluster, plugin);
  for (const { node } of nodes) node.write('/etc/cni/net.d/10-multus.conflist', multus);
  await mayDoNoMore(cluster, claims);
  await applyManifest(plane, 'storage.yaml');
  await plane.kubectl(['rollout', 'status', 'deployment/db', patience]);
  await twoTalk(cluster, claims);
  await unknownIsRefused(cluster, claims);
  await manyAtOnce(cluster, claims);
  await allIsGivenBack(cluster, claims);
}

/** Connections between two pods, one on each node. */
async function twoTalk(cluster: Cluster, claims: Claims): Promise<void> {
  await show(cluster, claims, 'get pods --selector=app=db --output=wide');
  await show(cluster, claims, 'get ippools --namespace=kube-system --output=jsonpath={.items[*].spec}');
  const pods = await storagePods(cluster);
  for (const pod of pods)
    await claims.check(
      `pod ${pod.name} on ${pod.node} has ${pod.storage} on net1, as its network-status says, and its default route on eth0`,
      isConnected(cluster, pod),
    );
  await claims.check('the pool has the addresses of these pods, and no others', poolIs(cluster, pods));
  const [one, other] = pods;
  for (const [from, to] of [
    [one!, other!],
    [other!, one!],
  ] as const)
    await claims.check(
      `the pod on ${from.node} reaches the one on ${to.node} at ${to.storage}, which sees its address there`,
      ask(inPod(cluster, from), `${to.storage}:8080`).then(
        (answer) => answer?.pod === to.name && answer.peer === from.storage,
      ),
    );
}

async function unknownIsRefused({ plane }: Cluster, claims: Claims): Promise<void> {
  const get = [
    'get',
    'events',
    '--field-selector=involvedObject.name=astray',
    '--output=jsonpath={..message}',
  ];
  await claims.check(
    'a pod that asks for a network that does not exist is not started, and an event says why',
    eventually(async () => /nowhere/.test(await plane.kubectl(get))),
  );
  await plane.kubectl(['delete', 'pod', 'astray', '--wait', patience]);
}

async function manyAtOnce(cluster: Cluster, claims: Claims): Promise<void> {
  await show(cluster, claims, 'scale deployment db --replicas=20');
  await cluster.plane.kubectl(['rollout', 'status', 'deployment/db', patience]);
  const many = await storagePods(cluster);
  await claims.check(
    '20 pods, which both nodes add at once, have 20 addresses, and the pool has these',
    poolIs(cluster, many).then((isSo) => isSo && new Set(many.map(({ storage }) => storage)).size === 20),
  );
  claims.say(
    `The API server has refused ${await conflicts(cluster)} changes of the pool with 409, as it had been changed since it was read`,
  );
  const [lost, ...others] = many;
  await collectLost(cluster, claims, {
    pod: lost!,
    sandbox: await sandboxOf(cluster, lost!),
    isFree: () => poolIs(cluster, others),
  });
}

async function allIsGivenBack(cluster: Cluster, claims: Claims): Promise<void> {
  await cluster.plane.kubectl(['delete', 'deployment', 'db', '--wait', patience]);
  await claims.check(
    'once they are deleted, the pool is empty, and no address is reserved',
    eventually(
      async () => (await poolIs(cluster, [])) && (await namesOf(cluster, reservations)).length === 0,
    ),
  );
  for (const { name, node } of cluster.nodes)
    await claims.check(
      `${name}: whereabouts keeps nothing of them`,
      eventually(async () => held(Object.keys(files(node, '/var/lib/cni/whereabouts'))).length === 0),
    );
}

const pools = 'ippools.whereabouts.cni.cncf.io';
const reservations = 'overlappingrangeipreservations.whereabouts.cni.cncf.io';

/** Applies a manifest of conf/kubernetes, and gives each node a kubeconfig for the user that it creates. */
async function allow({ plane, nodes }: Cluster, plugin: string): Promise<void> {
  await plane.kubectl(['apply', '--filename=-'], readFileSync(join(conf, `${plugin}.yaml`), 'utf8'));
  const get = [
    '--namespace=kube-system',
    'get',
    'secret',
    `cni-${plugin}`,
    '--output=jsonpath={.data.token}',
  ];
  let token = '';
  await eventually(async () => {
    token = Buffer.from(await plane.kubectl(get), 'base64').toString();
    return token !== '';
  });
  for (const { node } of nodes)
    node.write(`/etc/cni/net.d/${plugin}.d/${plugin}.kubeconfig`, plane.kubeconfig(token));
}

async function mayDoNoMore({ plane }: Cluster, claims: Claims): Promise<void> {
  for (const [user, verb, resource] of [
    ['cni-multus', 'delete', 'pods'],
    ['cni-multus', 'get', 'secrets'],
    ['cni-whereabouts', 'get', 'pods'],
  ] as const)
    await claims.check(
      `the user of the plugin, ${user}, may not ${verb} ${resource}`,
      plane
        .tryKubectl(['auth', 'can-i', verb, resource, `--as=system:serviceaccount:kube-system:${user}`])
        .then(({ stdout }) => stdout.trim() === 'no'),
    );
}

/** The pods of the deployment, with their addresses from the annotation that multus wrote. */
async function storagePods(cluster: Cluster): Promise<StoragePod[]> {
  const pods = await podsOf(cluster, 'db');
  return await Promise.all(
    pods.map(async (pod) => {
      const path = '{.metadata.annotations.k8s\\.v1\\.cni\\.cncf\\.io/network-status}';
      const status = JSON.parse(
        await cluster.plane.kubectl(['get', 'pod', pod.name, `--output=jsonpath=${path}`]),
      ) as { name: string; interface: string; ips: string[] }[];
      const storage = status.find((one) => one.name === 'default/storage' && one.interface === 'net1');
      return { ...pod, storage: storage?.ips[0] ?? '' };
    }),
  );
}

async function isConnected(cluster: Cluster, pod: StoragePod): Promise<boolean> {
  const { stdout: addresses } = await inPod(cluster, pod).run(['ip', '-o', '-4', 'address', 'show', 'net1']);
  const { stdout: routes } = await inPod(cluster, pod).run(['ip', 'route']);
  const defaults = routes.split('\n').filter((line) => line.startsWith('default '));
  return (
    pod.storage !== '' &&
    addresses.includes(` ${pod.storage}/26 `) &&
    defaults.length === 1 &&
    / dev eth0/.test(defaults[0]!)
  );
}

/** Whether the pool of the range has an entry for each of the pods, under its address, and no others. */
async function poolIs(cluster: Cluster, pods: readonly StoragePod[]): Promise<boolean> {
  const items = await poolsOf(cluster);
  const entries = items.flatMap((allocations) =>
    Object.entries(allocations).map(([offset, { podref }]) => `198.51.100.${offset} ${podref}`),
  );
  const wanted = pods.map(({ name, storage }) => `${storage} default/${name}`);
  return items.length === 1 && String(entries.sort()) === String(wanted.sort());
}

/** The container ID that the pool has for the address of a pod. */
async function sandboxOf(cluster: Cluster, { storage }: StoragePod): Promise<string> {
  const [allocations] = await poolsOf(cluster);
  return allocations![storage.split('.')[3]!]!.id;
}

/** The allocations in each pool, by their offset from the start of its range. */
async function poolsOf({ plane }: Cluster): Promise<Record<string, { id: string; podref: string }>[]> {
  const { items } = JSON.parse(
    await plane.kubectl(['get', pools, '--namespace=kube-system', '--output=json']),
  ) as { items: { spec: { allocations: Record<string, { id: string; podref: string }> } }[] };
  return items.map(({ spec }) => spec.allocations);
}

async function namesOf({ plane }: Cluster, resource: string): Promise<string[]> {
  const text = await plane.kubectl(['get', resource, '--namespace=kube-system', '--output=name']);
  return text.split('\n').filter((line) => line !== '');
}

/** Those of whereabouts' files that are about attachments. */
function held(paths: readonly string[]): string[] {
  return paths.filter((path) => !path.endsWith('lock'));
}
