/** Which of several networks has the least to carry on this node. */

import { setTimeout as sleep } from 'node:timers/promises';
import { readRegularFile } from '../file.ts';
import type { NetworkList } from './conflist.ts';

/** How long traffic is measured, in milliseconds. */
const watchedMs = 200;

/** Keys of plugins that name the host's interface that carries the traffic of a network's pods. */
const interfaceKeys = ['bridge', 'master'];

/**
 * The networks that can be the least loaded one. Those without an interface on the host count only if there
 * are no others, and then only the first.
 */
export function comparableNetworks(networks: readonly NetworkList[]): readonly NetworkList[] {
  const measured = networks.filter((network) => interfaceOf(network) !== undefined);
  return measured.length > 0 ? measured : networks.slice(0, 1);
}

/**
 * The network whose interface on the host, a bridge or a parent, carries the fewest bytes over a moment. An
 * interface that does not exist carries nothing.
 * @param networks to choose from; among equals, the first wins.
 * @returns undefined when there is none.
 */
export async function leastLoaded(networks: readonly NetworkList[]): Promise<NetworkList | undefined> {
  const [first, ...others] = comparableNetworks(networks);
  if (!first || others.length === 0) return first;
  const before = bytesByInterface();
  await sleep(watchedMs);
  const after = bytesByInterface();
  const load = (network: NetworkList) => {
    const name = interfaceOf(network) ?? '';
    return (after.get(name) ?? 0) - (before.get(name) ?? 0);
  };
  return others.reduce((least, one) => (load(one) < load(least) ? one : least), first);
}

function interfaceOf({ plugins: [first] }: NetworkList): string | undefined {
  if (!first) return undefined;
  const named = interfaceKeys
    .map((key) => first.config[key])
    .find((name) => typeof name === 'string' && name);
  return (named as string | undefined) ?? (first.type === 'bridge' ? 'cni0' : undefined);
}

/** Bytes received and sent by each interface since it was made. Source: proc_pid_net(5), "dev". */
function bytesByInterface(): Map<string, number> {
  const lines = readRegularFile('/proc/net/dev', { limit: 1024 * 1024, followLink: true }).split('\n');
  return new Map(
    lines.flatMap((line) => {
      const [, name, counters = ''] = /^\s*([^:\s]+):\s*(.*)$/.exec(line) ?? [];
      const [received, , , , , , , , sent] = counters.split(/\s+/).map(Number);
      return name === undefined ? [] : [[name, (received ?? 0) + (sent ?? 0)] as const];
    }),
  );
}
