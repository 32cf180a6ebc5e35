/** What is around a host: machines outside of it, and the interfaces that lead there. */

import type { Conflist } from './chain.ts';
import { sample } from './chain.ts';
import type { Host, Pod } from './host.ts';

/**
 * Makes a namespace that a veth pair joins to the host. Both ends are down.
 * @param name of the host's end. @param peer name of the other one.
 */
export async function joinedTo(host: Host, name: string, peer = name): Promise<Pod> {
  const outside = await host.addPod();
  const pair = ['type', 'veth', 'peer', 'name', peer, 'netns', outside.name];
  await host.run(['ip', 'link', 'add', name, ...pair]);
  return outside;
}

/**
 * Gives the host an interface "eth0" that is up, with a default route through it, and a neighbour behind it.
 * @returns the neighbour.
 */
export async function addMaster(host: Host, subnet: string): Promise<Pod> {
  const outside = await joinedTo(host, 'eth0');
  await host.run(['ip', 'link', 'set', 'eth0', 'up']);
  await outside.run(['ip', 'link', 'set', 'eth0', 'up']);
  await outside.run(['ip', 'addr', 'add', `${subnet}.255.254/16`, 'dev', 'eth0']);
  await host.run(['ip', 'addr', 'add', '198.51.100.1/24', 'dev', 'eth0']);
  await host.run(['ip', 'route', 'add', 'default', 'via', '198.51.100.254']);
  return outside;
}

/** A sample network with other keys in its first plugin; undefined takes a key out. */
export function changed(name: string, keys: object): Conflist {
  const network = sample(name);
  return { ...network, plugins: [{ ...network.plugins[0]!, ...keys }, ...network.plugins.slice(1)] };
}

/**
 * A namespace joined to the host by a wire, whose packets come from outside. Host: 192.0.2.1, fd00:2::1;
 * outside: .2, ::2.
 * @param wire name of both ends.
 */
export async function outsideOf(host: Host, wire = 'wire'): Promise<Pod> {
  const outside = await joinedTo(host, wire);
  for (const [ns, last] of [
    [host, 1],
    [outside, 2],
  ] as const) {
    await ns.run(['ip', 'addr', 'add', `192.0.2.${last}/24`, 'dev', wire]);
    await ns.run(['ip', 'addr', 'add', `fd00:2::${last}/64`, 'dev', wire, 'nodad']);
    await ns.run(['ip', 'link', 'set', wire, 'up']);
  }
  return outside;
}
