/** Nodes on one wire, with etcd at its end, for tests of the overlay between them. */

import type { ChildProcess } from 'node:child_process';
import { once } from 'node:events';
import { readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { Etcd } from './etcd.ts';
import { binDir, type Host, makeHost, type Teardown } from './host.ts';
import { addresses, type IpLink, ipJson, link, routes, until } from './observe.ts';

/** Where flanneld keeps what nodes share. */
const root = '/coreos.com/network';
const wireAddress = '192.0.2.100';
const settingsFile = '/etc/cni/overlay.json';
const log = '/run/overlay.log';

/** A network whose first subnets are left to tests that write to etcd themselves. */
export const vxlanNetwork = {
  ...{ Network: '10.244.0.0/16', SubnetMin: '10.244.100.0' },
  Backend: { Type: 'vxlan' },
};

/** A wire: a host with a switch, and etcd. */
export class Wire {
  readonly etcd: Etcd;
  private readonly t: Teardown;
  private readonly host: Host;

  private constructor(t: Teardown, host: Host, etcd: Etcd) {
    this.t = t;
    this.host = host;
    this.etcd = etcd;
  }

  /** @param network value of flannel's key "config". */
  static async make(t: Teardown, network: object = vxlanNetwork): Promise<Wire> {
    const host = await makeHost(t, { mayHaveAgent: false });
    await host.run(['ip', 'link', 'add', 'switch', 'up', 'type', 'bridge']);
    await host.run(['ip', 'address', 'add', `${wireAddress}/24`, 'dev', 'switch']);
    const etcd = await Etcd.startOn(t, [{ host, address: wireAddress }]);
    const wire = new Wire(t, host, etcd);
    await wire.write('config', network);
    return wire;
  }

  /** Writes many of flannel's keys, in batches. */
  async writeAll(pairs: readonly (readonly [name: string, value: string])[]): Promise<void> {
    for (let i = 0; i < pairs.length; i += 128)
      await this.etcd.putAll(pairs.slice(i, i + 128).map(([name, value]) => [`${root}/${name}`, value]));
  }

  /** Writes one of flannel's keys. */
  async write(name: string, value: object | string): Promise<void> {
    await this.etcd.put(`${root}/${name}`, typeof value === 'string' ? value : JSON.stringify(value));
  }

  /** Deletes one of flannel's keys. */
  async remove(name: string): Promise<void> {
    await this.etcd.ask('/v3/kv/deleterange', { key: Buffer.from(`${root}/${name}`).toString('base64') });
  }

  /** The subnet keys of nodes, and their values. */
  async subnets(): Promise<Record<string, string>> {
    const all = await this.etcd.all(`${root}/subnets/`);
    return Object.fromEntries(Object.entries(all).map(([key, value]) => [key.split('/').at(-1)!, value]));
  }

  /** The lease of a node's key. */
  async leaseOf(key: string): Promise<string> {
    const encoded = Buffer.from(`${root}/subnets/${key}`).toString('base64');
    const { kvs = [] } = (await this.etcd.ask('/v3/kv/range', { key: encoded })) as {
      kvs?: { lease?: string }[];
    };
    return kvs[0]?.lease ?? '';
  }

  /** Revokes a node's lease, as if it had expired. */
  async endLease(key: string): Promise<void> {
    await this.etcd.ask('/v3/lease/revoke', { ID: await this.leaseOf(key) });
  }

  /** A host on the wire, at 192.0.2.NUMBER. */
  async addHost(number: number): Promise<Host> {
    const host = await makeHost(this.t, { mayHaveAgent: false });
    await this.plug(host, number);
    return host;
  }

  /** Deletes a host's interface to the wire, and makes a new one with the same name and addresses. */
  async replug(host: Host, number: number, meanwhile?: () => Promise<void>): Promise<void> {
    await host.run(['ip', 'link', 'delete', 'eth0']);
    await meanwhile?.();
    await this.plug(host, number);
  }

  private async plug(host: Host, number: number): Promise<void> {
    const peer = ['peer', 'name', 'eth0', 'netns', `${host.pid}`];
    await this.host.run(['ip', 'link', 'add', `port${number}`, 'type', 'veth', ...peer]);
    await this.host.run(['ip', 'link', 'set', `port${number}`, 'up', 'master', 'switch']);
    await host.run(['ip', 'link', 'set', 'eth0', 'up']);
    await host.run(['ip', 'address', 'add', `192.0.2.${number}/24`, 'dev', 'eth0']);
    await host.run(['ip', 'address', 'add', `2001:db8::${number}/64`, 'dev', 'eth0', 'nodad']);
    await host.run(['ip', 'route', 'add', 'default', 'via', wireAddress]);
  }

  /** A host whose agent keeps the overlay. @param settings besides the endpoints of etcd. */
  async addNode(number: number, settings: object = {}): Promise<Node> {
    const node = new Node(this.t, await this.addHost(number));
    await node.startAgent({ 'etcd-endpoints': this.etcd.hosts, 'ip-masq': true, ...settings });
    return node;
  }

  /** Nodes 1 to `count`, once they know one another. */
  async addNodes(count: number, settings: object = {}): Promise<Node[]> {
    const numbers = Array.from({ length: count }, (_, i) => i + 1);
    const nodes = await Promise.all(numbers.map((number) => this.addNode(number, settings)));
    await untilConnected(nodes);
    return nodes;
  }
}

/** A node of the overlay. */
export class Node {
  readonly host: Host;
  private readonly t: Teardown;
  private agent: ChildProcess | undefined;

  constructor(t: Teardown, host: Host) {
    this.t = t;
    this.host = host;
  }

  /** Starts the agent; its output is in {@link log}. @param settings by default those of the last start. */
  async startAgent(settings?: object): Promise<void> {
    if (settings) writeFileSync(this.host.file(settingsFile), JSON.stringify(settings));
    const script = `touch ${log}; echo started; exec "$0" agent --overlay ${settingsFile} >> ${log} 2>&1`;
    this.agent = await this.host.start(this.t, ['sh', '-c', script, join(binDir, 'cni')]);
  }

  /** Ends the agent. */
  async stopAgent(signal: 'SIGTERM' | 'SIGKILL' = 'SIGTERM'): Promise<void> {
    const ended = once(this.agent!, 'exit');
    this.agent!.kill(signal);
    await ended;
  }

  /** What the agent has said. */
  get log(): string {
    return readFileSync(this.host.file(log), 'utf8');
  }

  /** The file for the plugin (subnet.env), by variable; undefined before it is written. */
  get env(): Record<string, string> | undefined {
    try {
      const lines = readFileSync(this.host.file('/run/flannel/subnet.env'), 'utf8').trim().split('\n');
      return Object.fromEntries(lines.map((line) => line.split('=')));
    } catch {
      return undefined;
    }
  }

  /** This node's IPv4 subnet, as in "10.244.1.0/24". */
  get subnet(): string {
    return this.env!.FLANNEL_SUBNET!.replace(/\d+(?=\/)/, (last) => `${Number(last) - 1}`);
  }

  /** Name of this node's key, in a network of IPv4 alone. */
  get key(): string {
    return this.subnet.replace('/', '-');
  }

  /** Destinations of the routes to other nodes. */
  async routedTo(family: 4 | 6 = 4): Promise<string[]> {
    const all = await routes(this.host, family);
    return all
      .filter(({ gateway, dst }) => gateway && dst !== 'default')
      .map(({ dst }) => dst)
      .sort();
  }

  /** Permanent forwarding entries of an interface, as "MAC ADDRESS". */
  async forwarding(name = 'flannel.1'): Promise<string[]> {
    const text = await this.host.run(['bridge', '-j', 'fdb', 'show', 'dev', name]);
    const all = JSON.parse(text) as { mac: string; dst?: string; state: string; flags: string[] }[];
    return all
      .filter(({ state, flags, dst }) => dst && state === 'permanent' && flags.includes('self'))
      .map(({ mac, dst }) => `${mac} ${dst}`)
      .sort();
  }

  /** Permanent neighbour entries of an interface, as "ADDRESS MAC". */
  async neighbours(name = 'flannel.1'): Promise<string[]> {
    const all = await ipJson<{ dst: string; lladdr: string }>(
      this.host,
      ...['neighbour', 'show', 'dev', name, 'nud', 'permanent'],
    );
    return all.map(({ dst, lladdr }) => `${dst} ${lladdr}`).sort();
  }

  /** Addresses of the VXLAN interface. */
  tunnelAddresses(): Promise<string[]> {
    return addresses(this.host, 'flannel.1');
  }
}

/** flannel.1 of a host, once none of its addresses is tentative any more. */
export async function settledTunnel(host: Host): Promise<IpLink> {
  let found: IpLink | undefined;
  await until('no address of flannel.1 is tentative', async () => {
    found = await link(host, 'flannel.1');
    return found?.addr_info?.every(({ tentative }) => !tentative) ?? false;
  });
  return found!;
}

/** Waits until each node has a subnet, and routes to the subnets of all others. */
export async function untilConnected(nodes: readonly Node[]): Promise<void> {
  await until('every node has a subnet', async () => nodes.every(({ env }) => env));
  await until('every node has routes to all others', async () => {
    const tables = await Promise.all(nodes.map((node) => node.routedTo()));
    return tables.every((table, i) => {
      const wanted = nodes.filter((_, other) => other !== i).map(({ subnet }) => subnet);
      return wanted.every((subnet) => table.includes(subnet));
    });
  });
}
