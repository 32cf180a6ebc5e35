/** Nodes of a cluster: hosts joined by a switch, which is a namespace of its own. */

import { type Host, makeHost, type Teardown } from './host.ts';

/** A node. */
export interface Node {
  readonly name: string;
  readonly host: Host;
  /** Its address on the network of the nodes. */
  readonly address: string;
  /** Unplugs its cable: it can reach only itself, and nobody else can reach it. */
  cutOff(): Promise<void>;
  /** Plugs the cable in again. */
  join(): Promise<void>;
}

/** Makes nodes "node-1" and so on, with addresses from 192.0.2.11 on at "eth0". They have no agent. */
export async function makeNodes(t: Teardown, count: number): Promise<Node[]> {
  const middle = await makeHost(t, { mayHaveAgent: false });
  await middle.run(['ip', 'link', 'add', 'switch', 'up', 'type', 'bridge']);
  const nodes: Node[] = [];
  for (let i = 1; i <= count; i++) {
    const host = await makeHost(t, { mayHaveAgent: false });
    const [port, address] = [`port${i}`, `192.0.2.${10 + i}`];
    const cable = ['type', 'veth', 'peer', 'name', 'eth0', 'netns', `${host.pid}`];
    await middle.run(['ip', 'link', 'add', port, 'up', 'master', 'switch', ...cable]);
    await host.run(['ip', 'addr', 'add', `${address}/24`, 'dev', 'eth0']);
    await host.run(['ip', 'link', 'set', 'eth0', 'up']);
    const set = (state: string) => middle.run(['ip', 'link', 'set', port, state]).then(() => {});
    nodes.push({ name: `node-${i}`, host, address, cutOff: () => set('down'), join: () => set('up') });
  }
  return nodes;
}
