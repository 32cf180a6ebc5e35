/** What an ADD of whereabouts costs, by the number of nodes and the size of the range. */

import { availableParallelism } from 'node:os';
import type { Etcd } from '../../test/support/etcd.ts';
import { startAgent, type Teardown } from '../../test/support/host.ts';
import type { PrintedResult } from '../../test/support/plugin.ts';
import { type Cluster, type NodeCluster, nodesOf } from '../../test/support/whereabouts.ts';

/** Ranges, of whose addresses half are taken beforehand. */
const ranges = [
  { range: '10.70.0.0/24', size: 256 },
  { range: '10.80.0.0/20', size: 4096 },
  { range: '10.90.0.0/16', size: 65_536 },
] as const;
/** ADDs of a measurement, and how many a node does at a time. */
const [adds, together] = [96, 4];

/** What is measured for one number of nodes and one range. */
interface Cell {
  readonly nodes: number;
  readonly size: number;
  readonly perSecond: number;
  /** Milliseconds, from the start of the process to its end. */
  readonly p50: number;
  readonly p99: number;
  readonly requests: number;
  readonly requestsOfDel: number;
  /** Processor time of all members together, in milliseconds per ADD. */
  readonly etcdMs: number;
}

/** Measures. @param say is told each line. @returns the tables in Markdown. */
export async function benchAddresses(t: Teardown, say: (line: string) => void): Promise<string> {
  const cluster = await nodesOf(t, 3, {});
  await startAgent(t, cluster.nodes[2]!.host);
  const { etcd } = cluster;
  const before = await dataSize(etcd);
  let taken = 0;
  for (const { range, size } of ranges) taken += await takeHalf(etcd, range, size);
  const bytes = ((await dataSize(etcd)) - before) / taken;
  const cells: Cell[] = [];
  for (const { range, size } of ranges)
    for (const nodes of [1, 2, 3]) {
      const cell = await measure(cluster, nodes, range, size);
      say(rowOf(cell));
      cells.push(cell);
    }
  const alone = await oneByOne(cluster.onNodes[0]!);
  const text = `${tableOf(cells, alone)}\n${modelOf(cells, bytes)}`;
  say(text);
  return text;
}

async function measure(
  { nodes, onNodes, etcd }: NodeCluster,
  count: number,
  range: string,
  size: number,
): Promise<Cell> {
  const some = onNodes.slice(0, count);
  const ids = Array.from({ length: adds }, (_, i) => ({ id: `${size}-${count}-${i}`, node: i % count }));
  const call = (verb: string, id: string, node: number, prevResult?: unknown) =>
    some[node]!.run(verb, id, { node: nodes[node]!.name, ipam: { range }, prevResult });
  // What a node does once in a while, such as authenticating, is not part of an ADD.
  for (const node of some.keys()) {
    await call('ADD', 'first', node);
    await call('DEL', 'first', node);
  }
  const times: number[] = [];
  const results = new Map<string, PrintedResult | undefined>();
  const [requests, processor, start] = [await etcd.handled(), etcd.processorMs(), performance.now()];
  await eachOf(ids, count, async ({ id, node }) => {
    const began = performance.now();
    const { exit, result, stdout } = await call('ADD', id, node);
    if (exit !== 0) throw new Error(`ADD: ${stdout}`);
    times.push(performance.now() - began);
    results.set(id, result);
  });
  const seconds = (performance.now() - start) / 1000;
  const etcdMs = (etcd.processorMs() - processor) / adds;
  const after = await etcd.handled();
  await eachOf(ids, count, async ({ id, node }) => {
    const { exit, stdout } = await call('DEL', id, node, results.get(id));
    if (exit !== 0) throw new Error(`DEL: ${stdout}`);
  });
  const sorted = times.toSorted((a, b) => a - b);
  return {
    ...{ nodes: count, size, etcdMs },
    perSecond: adds / seconds,
    p50: quantile(sorted, 0.5),
    p99: quantile(sorted, 0.99),
    requests: (after - requests) / adds,
    requestsOfDel: ((await etcd.handled()) - after) / adds,
  };
}

/** How long ADDs take one after the other on one node, and VERSION, which asks nobody. */
async function oneByOne(cluster: Cluster): Promise<{ add: number; version: number }> {
  const [add, version]: [number[], number[]] = [[], []];
  for (let i = 0; i < 30; i++) {
    for (const [verb, times] of [
      ['ADD', add],
      ['VERSION', version],
    ] as const) {
      const began = performance.now();
      const { exit, stdout } = await cluster.run(verb, `alone-${i}`, { ipam: { range: ranges[1].range } });
      if (exit !== 0) throw new Error(`${verb}: ${stdout}`);
      times.push(performance.now() - began);
    }
    await cluster.run('DEL', `alone-${i}`, { ipam: { range: ranges[1].range } });
  }
  const median = (times: number[]) =>
    quantile(
      times.toSorted((a, b) => a - b),
      0.5,
    );
  return { add: median(add), version: median(version) };
}

/** Works on a list, with several workers for each node. */
export async function eachOf<T>(
  list: readonly T[],
  nodes: number,
  work: (one: T) => Promise<void>,
): Promise<void> {
  const rest = list.values();
  const worker = async () => {
    for (const one of rest) await work(one);
  };
  await Promise.all(Array.from({ length: together * nodes }, worker));
}

/** Takes every second address of a range, as another node would. @returns how many. */
async function takeHalf(etcd: Etcd, range: string, size: number): Promise<number> {
  const [a, b] = range.split('.').map(Number);
  const first = (a! << 24) + (b! << 16);
  const puts = Array.from({ length: size / 2 - 1 }, (_, i) => {
    const address = first + 2 * i + 2;
    const dotted = [24, 16, 8, 0].map((bits) => (address >> bits) & 255).join('.');
    const owner = `/cni/addresses/of/node-0/vlan7/${'c'.repeat(56)}${address.toString(16)}/eth0`;
    const holding = { identity: '', addresses: [{ group: '@', address: dotted }], host: 'f'.repeat(16) };
    return [
      [`/cni/addresses/in/@/4-${address.toString(16).padStart(8, '0')}`, JSON.stringify({ owner })],
      [owner, JSON.stringify(holding)],
    ] as const;
  }).flat();
  for (let i = 0; i < puts.length; i += 120) await etcd.putAll(puts.slice(i, i + 120));
  return size / 2 - 1;
}

async function dataSize(etcd: Etcd): Promise<number> {
  const { dbSizeInUse } = await etcd.ask('/v3/maintenance/status', {});
  return Number(dbSizeInUse);
}

function quantile(sorted: readonly number[], part: number): number {
  return sorted[Math.min(sorted.length - 1, Math.floor(part * sorted.length))]!;
}

function rowOf({ nodes, size, perSecond, p50, p99, requests, requestsOfDel, etcdMs }: Cell): string {
  const cells = [
    ...[size.toLocaleString('en'), `${nodes}`, perSecond.toFixed(0), p50.toFixed(0), p99.toFixed(0)],
    ...[requests.toFixed(2), requestsOfDel.toFixed(2), etcdMs.toFixed(1)],
  ];
  return `| ${cells.join(' | ')} |`;
}

function tableOf(cells: readonly Cell[], { add, version }: { add: number; version: number }): string {
  return `| Range | Nodes | ADDs a second | p50, ms | p99, ms | Requests an ADD | A DEL | Processor of etcd, ms an ADD |
|--:|--:|--:|--:|--:|--:|--:|--:|
${cells.map(rowOf).join('\n')}

${adds} ADDs on ${availableParallelism()} cores that also run the three members of etcd, ${together} at a time on each node, by agents, half of each range taken before. The times are those of
the processes, start and end included; the members keep their logs in memory. One ADD at a time takes ${add.toFixed(0)} ms, a process that asks nobody (VERSION)
${version.toFixed(0)} ms.
`;
}

/** What a large cluster would take, judging by these figures. */
function modelOf(cells: readonly Cell[], bytes: number): string {
  const [nodes, pods] = [5000, 150_000];
  const largest = cells.filter(({ size }) => size === ranges.at(-1)!.size);
  const mean = (of: (cell: Cell) => number) =>
    largest.reduce((sum, cell) => sum + of(cell), 0) / largest.length;
  const [add, del, etcdMs] = [
    mean(({ requests }) => requests),
    mean(({ requestsOfDel }) => requestsOfDel),
    mean((cell) => cell.etcdMs),
  ];
  const hourly = pods / 3600;
  const number = (value: number) => Math.round(value).toLocaleString('en');
  return `By these figures, ${number(nodes)} nodes with ${number(pods)} pods, all of which are replaced within an hour, make ${number(hourly * (add + del))} requests a second (${hourly.toFixed(0)} ADDs
of ${add.toFixed(1)} and as many DELs of ${del.toFixed(1)}), and the ADDs take ${((hourly * etcdMs) / 1000).toFixed(2)} cores of all members together. Signs of life are at most ${number(nodes / 60)} a second with
agents. A runtime that asks for STATUS every five seconds adds ${number(nodes / 5)} reads a second, the largest part by far. An address with its owner takes
${number(bytes)} bytes, all of them ${number((bytes * pods) / 1e6)} MB of etcd's 2 GB.
`;
}
