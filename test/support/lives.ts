/** Lives of pods on the nodes of a cluster, and an observer who sees whether two ever share an address. */

import { type Outcome, withPatience } from './plugin.ts';
import type { NodeCluster } from './whereabouts.ts';

/** A living pod. */
interface Life {
  readonly node: number;
  readonly containerId: string;
  readonly address: string;
  readonly result: unknown;
}

/** How many calls a node makes at a time. */
const together = 4;

export class Lives {
  private readonly cluster: NodeCluster;
  /** Pods that live, by address: from the end of ADD to the start of DEL. */
  private readonly holders = new Map<string, Life>();
  private begun = 0;
  /** What must not happen: an address with two pods, an error other than "try again later", a failed DEL. */
  readonly problems: string[] = [];
  /** How many pods there have been, and how many ADDs were told to try again later. */
  readonly counts = { lives: 0, refused: 0 };

  constructor(cluster: NodeCluster) {
    this.cluster = cluster;
  }

  /** Begins lives on some nodes, in turn. */
  async begin(count: number, nodes: readonly number[] = this.all): Promise<void> {
    const queues = nodes.map((node, i) => ({ node, left: Math.ceil((count - i) / nodes.length) }));
    await this.eachTogether(queues, async (queue) => {
      if (queue.left-- <= 0) return false;
      await this.beginOne(queue.node);
      return true;
    });
  }

  /**
   * Begins lives until some nodes have so many more. Refusals with "try again later" are retried, as runtimes
   * do: on a busy machine, members of etcd hear of one another too late, and elect another leader.
   */
  async add(count: number, nodes: readonly number[] = this.all): Promise<void> {
    const living = () => nodes.reduce((sum, node) => sum + this.sizeOn(node), 0);
    const wanted = living() + count;
    for (let tries = 5; tries > 0 && living() < wanted; tries--) await this.begin(wanted - living(), nodes);
    if (living() < wanted) this.problems.push(`${wanted - living()} of ${count} pods got no address`);
  }

  /** Ends lives on some nodes, oldest first. */
  async end(count: number, nodes: readonly number[] = this.all): Promise<void> {
    const chosen = [...this.holders.values()].filter(({ node }) => nodes.includes(node)).slice(0, count);
    const queues = nodes.map((node) => chosen.filter((life) => life.node === node));
    await this.eachTogether(queues, async (queue) => {
      const life = queue.shift();
      if (life) await this.endOne(life);
      return life !== undefined;
    });
  }

  /** Ends lives and begins as many, at once. */
  async churn(count: number, nodes: readonly number[] = this.all): Promise<void> {
    await Promise.all([this.end(count, nodes), this.begin(count, nodes)]);
  }

  /** Ends all lives of a node that has died, without calling DEL. @returns the addresses they had. */
  bury(node: number): string[] {
    const dead = [...this.holders.values()].filter((life) => life.node === node);
    for (const { address } of dead) this.holders.delete(address);
    return dead.map(({ address }) => address);
  }

  /** How many pods live. */
  get size(): number {
    return this.holders.size;
  }

  /** How many pods live on a node. */
  sizeOn(node: number): number {
    return [...this.holders.values()].filter((life) => life.node === node).length;
  }

  /**
   * Has every node do its pending work and collect garbage, as runtimes do, and compares the contents of etcd
   * with what was seen.
   * @returns the differences.
   */
  async settle(): Promise<string[]> {
    for (const [node, { host }] of this.cluster.onNodes.entries()) {
      const own = [...this.holders.values()].filter((life) => life.node === node);
      const valid = own.map(({ containerId: containerID }) => ({ containerID, ifname: 'eth0' }));
      const conf = { 'cni.dev/valid-attachments': valid };
      const { exit, stdout } = await withPatience(() => this.run(node, 'GC', '', { conf }));
      if (exit !== 0) this.problems.push(`GC on node ${node} of ${host.pid}: ${stdout}`);
    }
    const kept = await this.cluster.etcd.all('/cni/addresses/');
    const expected = [...this.holders.values()].map(({ node, containerId, address }) => {
      const owner = `/cni/addresses/of/${this.cluster.nodes[node]!.name}/vlan7/${containerId}/eth0`;
      return [keyOf(address), owner] as const;
    });
    const found = Object.entries(kept).flatMap(([key, value]) =>
      key.startsWith('/cni/addresses/in/') ? [`${key} ${JSON.parse(value).owner}`] : [],
    );
    const owners = Object.keys(kept).filter((key) => key.startsWith('/cni/addresses/of/'));
    const wanted = expected.map(([key, owner]) => `${key} ${owner}`);
    return [
      ...difference(wanted, found).map((one) => `lost: ${one}`),
      ...difference(found, wanted).map((one) => `left: ${one}`),
      ...difference(
        owners,
        expected.map(([, owner]) => owner),
      ).map((one) => `left: ${one}`),
    ];
  }

  private get all(): number[] {
    return this.cluster.nodes.map((_, i) => i);
  }

  private async beginOne(node: number): Promise<void> {
    const containerId = `pod-${this.begun++}`;
    const outcome = await this.run(node, 'ADD', containerId, {});
    const address = outcome.result?.ips?.[0]?.address.split('/')[0];
    if (address !== undefined) {
      const life = { node, containerId, address, result: outcome.result };
      const other = this.holders.get(address);
      if (other)
        this.problems.push(
          `${containerId} got ${address} while ${other.containerId} of node ${other.node} had it`,
        );
      this.holders.set(address, life);
      this.counts.lives++;
      return;
    }
    this.counts.refused++;
    if (outcome.error?.code !== 11)
      this.problems.push(`ADD on node ${node}: ${outcome.stdout}${outcome.stderr}`);
    // As runtimes do after an ADD that failed.
    await this.del(node, containerId, {});
  }

  private async endOne({ node, containerId, address, result }: Life): Promise<void> {
    if (this.holders.get(address)?.containerId === containerId) this.holders.delete(address);
    await this.del(node, containerId, { prevResult: result });
  }

  private async del(node: number, containerId: string, more: object): Promise<void> {
    const { exit, stdout, stderr } = await this.run(node, 'DEL', containerId, more);
    if (exit !== 0) this.problems.push(`DEL on node ${node}: ${stdout}${stderr}`);
  }

  private run(node: number, verb: string, containerId: string, more: object): Promise<Outcome> {
    const { name } = this.cluster.nodes[node]!;
    return this.cluster.onNodes[node]!.run(verb, containerId, { node: name, pod: containerId, ...more });
  }

  /** Works on each queue several times at once, until `work` says that it is empty. */
  private async eachTogether<Q>(queues: readonly Q[], work: (queue: Q) => Promise<boolean>): Promise<void> {
    const worker = async (queue: Q) => {
      while (await work(queue));
    };
    await Promise.all(queues.flatMap((queue) => Array.from({ length: together }, () => worker(queue))));
  }
}

function keyOf(address: string): string {
  const hex = address.split('.').map((part) => Number(part).toString(16).padStart(2, '0'));
  return `/cni/addresses/in/@/4-${hex.join('')}`;
}

function difference(some: readonly string[], others: readonly string[]): string[] {
  const known = new Set(others);
  return some.filter((one) => !known.has(one));
}
