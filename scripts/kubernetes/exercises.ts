/** What people do with a cluster, each judged by what programs in it see. */

import type { Teardown } from '../../test/support/host.ts';
import { serve } from '../../test/support/observe.ts';
import type { Claims } from '../claims.ts';
import {
  allAnswer,
  ask,
  type Client,
  eventually,
  fromOutside,
  inPod,
  lookUp,
  onNodes,
  type PodInfo,
  podsOf,
} from './clients.ts';
import { applyManifest, type Cluster, patience } from './cluster.ts';
import { endings } from './endings.ts';
import { dnsAddress } from './node.ts';

type Exercise = (cluster: Cluster, claims: Claims, t: Teardown) => Promise<void>;

/** In order: later ones build on what earlier ones have deployed. */
export const exercises: readonly Exercise[] = [
  nodes,
  pods,
  services,
  names,
  nodePorts,
  hostPorts,
  ingress,
  changes,
  ...endings,
];

async function nodes(cluster: Cluster, claims: Claims): Promise<void> {
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

async function pods(cluster: Cluster, claims: Claims, t: Teardown): Promise<void> {
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

async function services(cluster: Cluster, claims: Claims): Promise<void> {
  claims.heading('3. A Service');
  await show(cluster, claims, 'expose deployment web --port=80 --target-port=8080');
  const web = await podsOf(cluster, 'web');
  await show(cluster, claims, 'get service web');
  await claims.check(
    'its Endpoints are the pods',
    eventually(() => endpointsAre(cluster, 'web', web)),
  );
  await show(cluster, claims, 'get endpoints web');
  const address = await clusterIp(cluster, 'web');
  for (const client of await insiders(cluster))
    await claims.check(
      `${client.name} reaches both pods at ${address}:80`,
      eventually(() => allAnswer(client, `${address}:80`, web)),
    );
  for (const pod of web)
    await claims.check(
      `pod ${pod.name} on ${pod.node} reaches the other and itself at ${address}:80`,
      allAnswer(inPod(cluster, pod), `${address}:80`, web),
    );
}

async function names(cluster: Cluster, claims: Claims): Promise<void> {
  claims.heading('4. Names');
  const clients = (await podsOf(cluster, 'client')).map((pod) => inPod(cluster, pod));
  const web = await podsOf(cluster, 'web');
  const members = await podsOf(cluster, 'member');
  const service = await clusterIp(cluster, 'web');
  const addresses = members.map((pod) => pod.address).sort();
  const podName = (pod: PodInfo) => `${pod.address.replaceAll('.', '-')}.default.pod.cluster.local`;
  const expected: [string, string, string[]][] = [
    ['a Service', 'web', [service]],
    ['a Service, with its namespace', 'web.default', [service]],
    ['a Service, in full', 'web.default.svc.cluster.local', [service]],
    ['a Service of another namespace', 'kube-dns.kube-system', [dnsAddress]],
    ['a pod', podName(web[0]!), [web[0]!.address]],
    ['a headless Service: its pods', 'members', addresses],
    ...members.map(
      (pod) =>
        ['a pod of a headless Service', `${pod.name}.members`, [pod.address]] as [string, string, string[]],
    ),
    ['the address of a Service', service, ['web.default.svc.cluster.local']],
    ['what there is not', 'absent', []],
  ];
  const { stdout } = await clients[0]!.run(['nslookup', 'web']);
  claims.show(`in ${clients[0]!.name}$ nslookup web`, stdout);
  for (const client of clients)
    for (const [what, name, answers] of expected)
      await claims.check(
        `${client.name} looks up ${what}: ${name} → ${answers.join(', ') || 'nothing'}`,
        eventually(async () => String(await lookUp(client, name)) === String(answers)),
      );
  for (const client of clients) {
    await claims.check(`${client.name} reaches both pods at http://web`, allAnswer(client, 'web', web));
    for (const pod of members)
      await claims.check(
        `${client.name} reaches pod ${pod.name} at http://${pod.name}.members:8080`,
        ask(client, `${pod.name}.members:8080`).then((answer) => answer?.pod === pod.name),
      );
  }
}

async function nodePorts(cluster: Cluster, claims: Claims): Promise<void> {
  claims.heading('5. NodePort');
  const web = await podsOf(cluster, 'web');
  await show(
    cluster,
    claims,
    'expose deployment web --name=web-node --type=NodePort --port=80 --target-port=8080',
  );
  const get = ['get', 'service', 'web-node', '--output=jsonpath={.spec.ports[0].nodePort}'];
  const port = await cluster.plane.kubectl(get);
  for (const client of [...(await insiders(cluster)), fromOutside(cluster)])
    for (const { name, address } of cluster.nodes)
      await claims.check(
        `${client.name} reaches both pods at ${address}:${port}, of ${name}`,
        eventually(() => allAnswer(client, `${address}:${port}`, web)),
      );
  await cluster.plane.kubectl([
    ...['patch', 'service', 'web-node'],
    '--patch={"spec": {"externalTrafficPolicy": "Local"}}',
  ]);
  for (const { name, address } of cluster.nodes)
    await claims.check(
      `with externalTrafficPolicy Local, the pod on ${name} answers there, and sees who asks`,
      eventually(async () => {
        const own = web.find(({ node }) => node === name)!;
        const answer = await ask(fromOutside(cluster), `${address}:${port}`);
        return answer?.pod === own.name && answer.peer === '192.0.2.1';
      }),
    );
}

async function hostPorts(cluster: Cluster, claims: Claims): Promise<void> {
  claims.heading('6. hostPort');
  const [node1, node2] = cluster.nodes;
  const port = `${node1!.address}:9080`;
  const [published] = await podsOf(cluster, 'published');
  const clients = [...(await insiders(cluster)), fromOutside(cluster), inPod(cluster, published!)];
  for (const client of clients)
    await claims.check(
      `${client.name} reaches the pod at ${port}`,
      ask(client, port).then((answer) => answer?.pod === 'published'),
    );
  await claims.check(
    'node1 reaches it at 127.0.0.1:9080',
    ask(onNodes(cluster)[0]!, '127.0.0.1:9080').then((answer) => answer?.pod === 'published'),
  );
  await claims.check(
    'at the other node, nobody answers',
    ask(fromOutside(cluster), `${node2!.address}:9080`).then((answer) => answer === undefined),
  );
}

async function ingress(cluster: Cluster, claims: Claims): Promise<void> {
  claims.heading('7. Ingress');
  const web = await podsOf(cluster, 'web');
  const members = await podsOf(cluster, 'member');
  await show(
    cluster,
    claims,
    'create ingress sites --rule=web.example/*=web:80 --rule=members.example/*=members:8080',
  );
  await show(cluster, claims, 'get ingress sites');
  const client = fromOutside(cluster);
  for (const { name, address } of cluster.nodes) {
    const sites = { 'web.example': web, 'members.example': members };
    for (const [site, servers] of Object.entries(sites))
      await claims.check(
        `${client.name} reaches both pods of http://${site} at ${name}`,
        eventually(() => allAnswer(client, address, servers, ['--header', `Host: ${site}`])),
      );
    const status = ['--output', '/dev/null', '--write-out', '%{http_code}'];
    await claims.check(
      `a site that there is not is refused at ${name}`,
      client
        .run(['curl', '--silent', ...status, '--header', 'Host: other.example', `http://${address}/`])
        .then(({ stdout }) => stdout === '404'),
    );
  }
}

async function changes(cluster: Cluster, claims: Claims): Promise<void> {
  const { plane } = cluster;
  claims.heading('8. Pods come and go');
  const address = await clusterIp(cluster, 'web');
  const client = inPod(cluster, (await podsOf(cluster, 'client'))[0]!);
  const follows = async (claim: string) => {
    const web = await podsOf(cluster, 'web');
    await claims.check(
      claim,
      eventually(() => endpointsAre(cluster, 'web', web)),
    );
    await claims.check(
      `${client.name} reaches ${web.length === 1 ? 'it' : `all ${web.length} of them`}`,
      eventually(() => allAnswer(client, `${address}:80`, web)),
    );
  };
  await show(cluster, claims, 'scale deployment web --replicas=4');
  await plane.kubectl(['rollout', 'status', 'deployment/web', patience]);
  await follows('the Endpoints follow');
  const [victim] = await podsOf(cluster, 'web');
  await show(cluster, claims, `delete pod ${victim!.name}`);
  await plane.kubectl(['rollout', 'status', 'deployment/web', patience]);
  await follows('another pod has taken its place');
  await show(cluster, claims, 'scale deployment web --replicas=0');
  await claims.check(
    'there are no Endpoints any more',
    eventually(() => endpointsAre(cluster, 'web', [])),
  );
  await claims.check(
    'nobody answers',
    eventually(async () => (await ask(client, `${address}:80`)) === undefined),
  );
  await plane.kubectl(['scale', 'deployment', 'web', '--replicas=2']);
  await plane.kubectl(['rollout', 'status', 'deployment/web', patience]);
  await follows('with two pods again, they are its Endpoints');
}

/** A pod on each node, and the nodes: who reaches the address of a Service. */
async function insiders(cluster: Cluster): Promise<Client[]> {
  const clients = await podsOf(cluster, 'client');
  return [...clients.map((pod) => inPod(cluster, pod)), ...onNodes(cluster)];
}

async function endpointsAre({ plane }: Cluster, service: string, pods: readonly PodInfo[]): Promise<boolean> {
  const get = ['get', 'endpoints', service, '--output=jsonpath={.subsets[*].addresses[*].ip}'];
  const found = (await plane.kubectl(get)).split(' ').filter((address) => address !== '');
  return String(found.sort()) === String(pods.map(({ address }) => address).sort());
}

function clusterIp({ plane }: Cluster, service: string): Promise<string> {
  return plane.kubectl(['get', 'service', service, '--output=jsonpath={.spec.clusterIP}']);
}

/** Runs kubectl and shows what it says. @param line its arguments, none of which contains a space. */
async function show({ plane }: Cluster, claims: Claims, line: string): Promise<void> {
  claims.show(`$ kubectl ${line}`, await plane.kubectl(line.split(' ')));
}
