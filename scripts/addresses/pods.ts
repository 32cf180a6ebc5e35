/** How long many pods take to start on three nodes, with everything that this involves. */

import { availableParallelism, loadavg } from 'node:os';
import { type Pod, startAgent, type Teardown } from '../../test/support/host.ts';
import { ping } from '../../test/support/observe.ts';
import { type PrintedResult, runPlugin } from '../../test/support/plugin.ts';
import { type Cluster, type NodeCluster, nodesOf } from '../../test/support/whereabouts.ts';
import { eachOf } from './bench.ts';

/** How many pods, and within how many seconds they must have their interfaces and addresses. */
const [count, longest] = [1000, 60];
const range = '10.70.0.0/21';

/** A pod, and the node that it is on. */
interface Started {
  readonly node: number;
  readonly pod: Pod;
  readonly result: PrintedResult;
}

/**
 * Starts pods with macvlan on the network of the nodes, equally many on each, by their agents: makes the
 * namespaces, and calls the plugin. Then looks into every pod, and takes the pods down.
 * @param say is told about the progress.
 * @returns a line in Markdown, and what is wrong.
 */
export async function startPods(
  t: Teardown,
  say: (line: string) => void,
): Promise<{ text: string; problems: string[] }> {
  const cluster = await nodesOf(t, 3, { range });
  await startAgent(t, cluster.nodes[2]!.host);
  const [load = 0] = loadavg();
  const places = Array.from({ length: count }, (_, i) => i % cluster.nodes.length);

  const started: Started[] = [];
  const begun = performance.now();
  await eachOf(places, cluster.nodes.length, async (node) => {
    const { host } = cluster.nodes[node]!;
    const pod = await host.addPod();
    started.push({ node, pod, result: await add(cluster, node, pod) });
  });
  const seconds = (performance.now() - begun) / 1000;
  say(`${count} pods after ${seconds.toFixed(1)} s; the load was ${load.toFixed(1)} before`);

  const problems = await compare(cluster, started);
  if (seconds > longest)
    problems.push(`${count} pods took ${seconds.toFixed(1)} s, which is more than ${longest} s`);

  const ending = performance.now();
  await eachOf(started, cluster.nodes.length, async ({ node, pod, result }) => {
    const { exit, stdout } = await callPlugin(cluster, 'DEL', node, pod, result);
    if (exit !== 0) problems.push(`DEL: ${stdout}`);
    await pod.remove();
  });
  const end = (performance.now() - ending) / 1000;
  const left = await keptOf(cluster.onNodes[0]!);
  if (left.length > 0) problems.push(`${left.length} addresses are left after the last DEL`);
  const text = `${count.toLocaleString('en')} pods with macvlan on three nodes start in ${seconds.toFixed(0)} s and end in ${end.toFixed(0)} s, namespaces and processes included, on ${availableParallelism()} cores that also run
the three members of etcd; the machine had a load of ${load.toFixed(1)} before.
`;
  say(text);
  return { text, problems };
}

/** Compares what the pods have, as ip(8) sees it, with their results and with what etcd has. */
async function compare(cluster: NodeCluster, started: readonly Started[]): Promise<string[]> {
  const problems: string[] = [];
  const seen = new Set<string>();
  for (const [node, { host }] of cluster.nodes.entries()) {
    const own = started.filter((one) => one.node === node);
    const script = 'for name; do ip -n "$name" -4 -o addr show dev eth0; done';
    const said = await host.run(['sh', '-c', script, 'sh', ...own.map(({ pod }) => pod.name)]);
    const found = said.match(/(?<=inet )[\d.]+(?=\/)/g) ?? [];
    const given = own.map(({ result }) => addressOf(result));
    if (found.join() !== given.join()) problems.push(`Pods of node ${node} do not have what ADD said`);
    for (const address of found) seen.add(address);
  }
  if (seen.size !== started.length) problems.push(`${started.length} pods have ${seen.size} addresses`);
  const kept = await keptOf(cluster.onNodes[0]!);
  if (kept.length !== started.length) problems.push(`etcd has ${kept.length} addresses`);
  const firsts = cluster.nodes.map((_, node) => started.find((one) => one.node === node)!);
  for (const [i, { pod }] of firsts.entries()) {
    const other = addressOf(firsts[(i + 1) % firsts.length]!.result);
    if (!(await ping(pod, other))) problems.push(`A pod of node ${i} does not reach ${other} of another`);
  }
  return problems;
}

/** ADD, repeated if told to try again later, as runtimes do: etcd may be electing a leader. */
async function add(cluster: NodeCluster, node: number, pod: Pod): Promise<PrintedResult> {
  for (let tries = 5; ; tries--) {
    const { result, error, stdout } = await callPlugin(cluster, 'ADD', node, pod);
    if (result) return result;
    if (error?.code !== 11 || tries === 1) throw new Error(`ADD: ${stdout}`);
    await callPlugin(cluster, 'DEL', node, pod);
  }
}

function callPlugin(
  { nodes, onNodes }: NodeCluster,
  verb: 'ADD' | 'DEL',
  node: number,
  pod: Pod,
  prevResult?: PrintedResult,
) {
  const { host, name } = nodes[node]!;
  const ipam = { type: 'whereabouts', ...onNodes[node]!.ipam };
  return runPlugin(host, 'macvlan', verb, {
    pod,
    config: { cniVersion: '1.1.0', name: 'vlan7', type: 'macvlan', master: 'eth0', ipam, prevResult },
    env: { NODENAME: name },
  });
}

function addressOf({ ips = [] }: PrintedResult): string {
  return ips[0]!.address.split('/')[0]!;
}

/** Addresses that containers have, according to etcd. */
async function keptOf({ etcd }: Cluster): Promise<string[]> {
  return Object.keys(await etcd.all('/cni/addresses/in/'));
}
