/** The nodes of the network, as etcd lists them. */

import type { KeyValue } from '../../lib/etcd/kv.ts';
import type { KeyChange } from '../../lib/etcd/watch.ts';
import { isOwn, type NodeKey, type Tenant } from './lease.ts';
import type { NetworkConfig } from './network-config.ts';
import { type Node, overlap, parseNode, type Subnets, subnetKey } from './node.ts';

/** The keys of nodes, without invalid ones. */
export class NodeTable {
  private readonly nodes = new Map<string, NodeKey>();
  private readonly prefix: string;
  private readonly config: NetworkConfig;
  private readonly warn: (message: string) => void;

  /** @param prefix what the keys of nodes begin with. @param warn is told of keys that are left out. */
  constructor(
    prefix: string,
    config: NetworkConfig,
    kvs: readonly KeyValue[],
    warn: (message: string) => void,
  ) {
    this.prefix = prefix;
    this.config = config;
    this.warn = warn;
    for (const kv of kvs) this.set(kv);
  }

  get all(): NodeKey[] {
    return [...this.nodes.values()];
  }

  /** The nodes that packets are sent to, and why others are left out. @param own subnets of this node. */
  othersThan(tenant: Tenant, own: Subnets): { others: Node[]; problems: string[] } {
    const { backend } = tenant.reach;
    const others: Node[] = [];
    const problems: string[] = [];
    for (const { node } of this.nodes.values()) {
      if (isOwn(tenant, node) || overlap(own, node.subnets)) continue;
      if (node.backend === backend && node.publicIp[4]) others.push(node);
      else
        problems.push(
          `${subnetKey(node.subnets)} is left out: it has backend "${node.backend}" and address ${node.publicIp[4] ?? 'none'}, and this node has backend "${backend}"`,
        );
    }
    return { others, problems };
  }

  change({ kv, isDeleted }: KeyChange): void {
    if (isDeleted) this.nodes.delete(kv.key);
    else this.set(kv);
  }

  private set(kv: KeyValue): void {
    if (!kv.key.startsWith(this.prefix)) return;
    this.nodes.delete(kv.key);
    try {
      const node = parseNode(kv.key.slice(this.prefix.length), kv.value);
      this.requireWithin(node);
      this.nodes.set(kv.key, { kv, node });
    } catch (error) {
      const key = JSON.stringify(kv.key.slice(0, 200));
      this.warn(`Key ${key} of etcd is not a node's, and is ignored: ${(error as Error).message}`);
    }
  }

  private requireWithin({ subnets }: Node): void {
    for (const family of [4, 6] as const) {
      const [subnet, network] = [subnets[family], this.config.ranges[family]?.network];
      if (subnet && network && !(network.contains(subnet.address) && subnet.length > network.length))
        throw new Error(`${subnet} is not within ${network}`);
    }
  }
}
