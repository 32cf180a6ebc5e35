/** Clients in pods, on nodes and outside the cluster, and the answers that they get. */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Output } from '../../test/support/run.ts';
import { type PodInfo, podsOf } from './api.ts';
import type { Cluster } from './cluster.ts';

/** Something that runs programs somewhere. */
export interface Client {
  readonly name: string;
  run(argv: readonly string[]): Promise<Output>;
}

/** What a server of manifests/web.yaml says: its pod, and the address that it sees at the other end. */
export interface Answer {
  readonly pod: string;
  readonly peer: string;
}

/** A client in a pod. */
export function inPod({ plane }: Cluster, { name, node }: PodInfo): Client {
  return {
    name: `pod ${name} on ${node}`,
    run: (argv) => plane.tryKubectl(['exec', name, '--', ...argv]),
  };
}

/** The nodes as clients, by name. */
export function onNodes({ nodes }: Cluster): Client[] {
  return nodes.map(({ name, node }) => ({ name, run: (argv) => node.tryRun(argv) }));
}

/** A pod on each node, and the nodes: the clients that reach the address of a Service. */
export async function insiders(cluster: Cluster): Promise<Client[]> {
  const clients = await podsOf(cluster, 'client');
  return [...clients.map((pod) => inPod(cluster, pod)), ...onNodes(cluster)];
}

/** The machine outside. */
export function fromOutside({ outside }: Cluster): Client {
  return { name: 'the machine outside', run: (argv) => outside.tryRun(argv) };
}

/**
 * Asks a server of manifests/web.yaml once.
 * @param options additional options of curl.
 * @returns undefined when nobody answers within five seconds.
 */
export async function ask(
  client: Client,
  server: string,
  options: readonly string[] = [],
): Promise<Answer | undefined> {
  const url = `http://${server}/cgi-bin/who`;
  const curl = ['curl', '--silent', '--fail', '--max-time', '5', ...options, url];
  const { exit, stdout } = await client.run(curl);
  if (exit !== 0) return undefined;
  const [pod = '', peer = ''] = stdout.trim().split(' ');
  return { pod, peer };
}

/**
 * Asks a Service until every pod behind it has answered.
 * @returns false when one of 100 connections fails, or some pod has answered none of them.
 */
export async function allAnswer(
  client: Client,
  server: string,
  pods: readonly PodInfo[],
  options: readonly string[] = [],
): Promise<boolean> {
  const missing = new Set(pods.map(({ name }) => name));
  for (let tries = 0; tries < 100 && missing.size > 0; tries++) {
    const answer = await ask(client, server, options);
    if (!answer || !pods.some(({ name }) => name === answer.pod)) return false;
    missing.delete(answer.pod);
  }
  return missing.size === 0;
}

/** Tries for a minute: kube-proxy, DNS and the Ingress proxy follow the API in their own time. */
export async function eventually(isSo: () => Promise<boolean>): Promise<boolean> {
  for (const end = Date.now() + 60_000; Date.now() < end; await sleep(200)) if (await isSo()) return true;
  return false;
}

/** What DNS answers a client. @returns sorted addresses or names; none for a name that does not exist. */
export async function lookUp(client: Client, name: string): Promise<string[]> {
  const { exit, stdout } = await client.run(['nslookup', name]);
  if (exit !== 0) return [];
  // The line with the server's own address has a tab instead of the blank.
  const found = stdout.matchAll(/^Address: (\S+)|name = (\S+)\.$/gm);
  return [...found].map(([, address, pointer]) => (address ?? pointer)!).sort();
}
