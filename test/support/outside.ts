/** What is around a host: machines outside of it, and the interfaces that lead there. */

import type { Conflist } from './chain.ts';
import { sample } from './chain.ts';
import type { Host, Pod } from './host.ts';

/**
 * Gives the host an interface "eth0" that is up, with a default route by it, and a neighbour behind it.
 * @returns the neighbour.
 */
export async function addMaster(host: Host, subnet: string): Promise<Pod> {
  const outside = await host.addPod();
  await host.run([
    'ip',
    'link',
    'add',
    'eth0',
    'type',
    'veth',
    'peer',
    'name',
    'eth0',
    'netns',
    outside.name,
  ]);
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
 */
export async function outsideOf(host: Host): Promise<Pod> {
  const outside = await host.addPod();
  await host.run([
    'ip',
    'link',
    'add',
    'wire',
    'type',
    'veth',
    'peer',
    'name',
    'wire',
    'netns',
    outside.name,
  ]);
  for (const [ns, last] of [
    [host, 1],
    [outside, 2],
  ] as const) {
    await ns.run(['ip', 'addr', 'add', `192.0.2.${last}/24`, 'dev', 'wire']);
    await ns.run(['ip', 'addr', 'add', `fd00:2::${last}/64`, 'dev', 'wire', 'nodad']);
    await ns.run(['ip', 'link', 'set', 'wire', 'up']);
  }
  return outside;
}
