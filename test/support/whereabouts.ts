/** whereabouts on the nodes of a cluster, with etcd. */

import { Etcd } from './etcd.ts';
import { type Host, makeHost, startAgent, type Teardown } from './host.ts';
import { makeNodes, type Node } from './nodes.ts';
import { copyAuthorities, makeAuthority, peerTlsOptions, tlsKeys, tlsOptions } from './pki.ts';
import { WhereaboutsCalls } from './whereabouts-calls.ts';

/** Nodes that share a network, and one etcd. */
export class Cluster extends WhereaboutsCalls {
  readonly etcd: Etcd;

  constructor(host: Host, etcd: Etcd, ipam: object) {
    super(host, { etcd_host: etcd.hosts, range: '10.70.0.0/24', ...ipam });
    this.etcd = etcd;
  }

  /** What is in etcd, except for the keys that say that nodes are alive. */
  async kept(): Promise<Record<string, string>> {
    const all = Object.entries(await this.etcd.all());
    return Object.fromEntries(all.filter(([key]) => !key.startsWith('/cni/addresses/nodes/')));
  }
}

/** Makes a cluster with an etcd of its own. @param size number of members. */
export async function clusterOf(t: Teardown, ipam: object = {}, size = 1): Promise<Cluster> {
  const host = await makeHost(t);
  return new Cluster(host, await Etcd.start(t, host, { size }), ipam);
}

/** Nodes with a member of etcd on each, which requires a client certificate and a password. */
export interface NodeCluster {
  readonly nodes: readonly Node[];
  readonly etcd: Etcd;
  /** whereabouts on each of the nodes. */
  readonly onNodes: readonly Cluster[];
}

/**
 * Makes nodes of a cluster. All but the last have an agent; the last has a small disk of its own for etcd,
 * /run/etcd/mN.
 */
export async function nodesOf(t: Teardown, count: number, ipam: object): Promise<NodeCluster> {
  const nodes = await makeNodes(t, count);
  const [first, ...others] = nodes.map(({ host }) => host);
  const tls = await makeAuthority(
    first!,
    'own',
    nodes.map(({ address }) => address),
  );
  for (const other of others) await copyAuthorities(first!, other);
  const disk = `/run/etcd/m${count - 1}`;
  // etcd preallocates 128 MB for its write-ahead log.
  const mount = `mkdir -p -m 700 ${disk}; mount -t tmpfs -o size=160m,mode=700 tmpfs ${disk}`;
  await nodes.at(-1)!.host.run(['sh', '-ec', mount]);
  const options = [...tlsOptions('own'), ...peerTlsOptions('own'), '--bcrypt-cost=4'];
  const etcd = await Etcd.startOn(t, nodes, { tls, options, peersHaveTls: true });
  await etcd.requirePassword('secret');
  for (const { host } of nodes.slice(0, -1)) await startAgent(t, host);
  const user = { etcd_username: 'root', etcd_password: 'secret' };
  const onNodes = nodes.map(({ host }) => new Cluster(host, etcd, { ...tlsKeys(tls), ...user, ...ipam }));
  return { nodes, etcd, onNodes };
}
