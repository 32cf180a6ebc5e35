/** Services, how they are found by name, and how they follow their pods. */

import type { Claims } from '../../claims.ts';
import { clusterIp, endpointsAre, type PodInfo, podsOf, show } from '../api.ts';
import { allAnswer, ask, eventually, inPod, insiders, lookUp } from '../clients.ts';
import { type Cluster, patience } from '../cluster.ts';
import { dnsAddress } from '../node.ts';

export async function services(cluster: Cluster, claims: Claims): Promise<void> {
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

export async function names(cluster: Cluster, claims: Claims): Promise<void> {
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
    ['a name that does not exist', 'absent', []],
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

export async function changes(cluster: Cluster, claims: Claims): Promise<void> {
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
      `${client.name} reaches all of the ${web.length} pods`,
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
