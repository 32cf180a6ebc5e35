/** What is reached at the addresses of nodes, also from outside: NodePort, hostPort and Ingress. */

import type { Claims } from '../../claims.ts';
import { podsOf, show } from '../api.ts';
import { allAnswer, ask, eventually, fromOutside, inPod, insiders, onNodes } from '../clients.ts';
import type { Cluster } from '../cluster.ts';

export async function nodePorts(cluster: Cluster, claims: Claims): Promise<void> {
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

export async function hostPorts(cluster: Cluster, claims: Claims): Promise<void> {
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

export async function ingress(cluster: Cluster, claims: Claims): Promise<void> {
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
      `an unknown site is refused at ${name}`,
      client
        .run(['curl', '--silent', ...status, '--header', 'Host: other.example', `http://${address}/`])
        .then(({ stdout }) => stdout === '404'),
    );
  }
}
