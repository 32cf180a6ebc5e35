/** Collects what belongs to no pod, and checks that this spares what belongs to one. */

import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { isIP } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { pluginConfig } from '../../test/support/chain.ts';
import { ours } from '../bench/measure.ts';
import type { Random } from '../random.ts';
import type { SoakNetwork } from './networks.ts';
import type { Pod } from './pod.ts';
import { judge, killFor, settlingTime, type Tools, triesAtMost } from './tools.ts';

/** Pods by container ID. */
type Pods = ReadonlyMap<string, Pod>;

/**
 * Runs GC of networks, with the attached pods as valid attachments; only by this suite, as older releases of
 * the reference have no GC. Then looks at what is reserved.
 */
export async function collect(
  tools: Tools,
  networks: readonly SoakNetwork[],
  attached: Pods,
  random: Random,
): Promise<void> {
  for (const network of networks) {
    const conflist = { ...network.conflist, cniVersion: '1.1.0' };
    const valid = podsOf(network, attached).map(({ containerId: containerID, ifname }) => ({
      containerID,
      ifname,
    }));
    for (const plugin of conflist.plugins) {
      const config = { ...pluginConfig(conflist, plugin), 'cni.dev/valid-attachments': valid };
      for (let tries = 0; ; tries++) {
        const contender = random.pick(ours);
        const kill = killFor(tries, tools, random);
        const call = { command: 'GC', plugin: plugin.type, config, contender, kill } as const;
        const outcome = await tools.caller.run(call);
        judge(tools.findings, call, outcome);
        if (outcome.isDone || tries === triesAtMost) break;
      }
    }
  }
  await compareReservations(tools, networks, attached);
}

/** Checks that exactly the attached pods have addresses reserved, once what failed has been undone. */
async function compareReservations(
  { findings }: Tools,
  networks: readonly SoakNetwork[],
  attached: Pods,
): Promise<void> {
  for (const network of networks) {
    const { name } = network.conflist;
    const expected = podsOf(network, attached).flatMap(({ addresses, containerId }) =>
      addresses.map((address) => `${address} ${containerId}`),
    );
    const found = () => reservationsOf(name).map(({ address, owner }) => `${address} ${owner}`);
    const isAsExpected = () => found().sort().join() === expected.sort().join();
    for (const end = performance.now() + settlingTime; !isAsExpected(); await sleep(200))
      if (performance.now() > end) {
        findings.violation(
          `After GC of "${name}", reserved is: ${found().join(', ')}; and attached is: ${expected.join(', ')}`,
        );
        break;
      }
  }
}

function podsOf(network: SoakNetwork, attached: Pods): Pod[] {
  return [...attached.values()].filter((pod) => pod.network === network);
}

/** The addresses of a network that host-local has handed out, and to which containers. */
export function reservationsOf(network: string): { address: string; owner: string | undefined }[] {
  const directory = `/var/lib/cni/networks/${network}`;
  return (existsSync(directory) ? readdirSync(directory) : [])
    .filter((name) => isIP(name) !== 0)
    .map((address) => ({ address, owner: read(`${directory}/${address}`)?.split('\r\n')[0] }));
}

function read(file: string): string | undefined {
  try {
    return readFileSync(file, 'utf8');
  } catch {
    return undefined; // It has just been released.
  }
}
