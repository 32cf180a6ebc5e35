/** Garbage collection of many attachments at once. */

import { execFileSync } from 'node:child_process';
import { type Contender, call, delChain, type Network } from './call.ts';
import { clear, liveOnce, podNetwork, populate } from './host.ts';
import { alternate, emptySamples, type Scenario } from './scenario.ts';

/** GC of half of the attachments. @param count how many there are. */
export function collection(count: number, rounds: number): Scenario {
  const name = `GC of ${count.toLocaleString('en')}, half stale`;
  return {
    name,
    async measure() {
      const samples = emptySamples();
      await alternate(
        rounds,
        async (contender) => {
          await liveOnce(podNetwork(), contender, 'first');
          populate(count);
          samples[contender].push(
            await (contender === 'reference'
              ? deleteOneByOne(contender, count / 2)
              : collect(contender, count)),
          );
          clear();
        },
        { warmUp: 0, fewest: 1 },
      );
      return [{ name, unit: 'ms', samples }];
    },
  };
}

/** @returns how long it took, in milliseconds. @throws Error when something stale is left. */
async function collect(contender: Contender, count: number): Promise<number> {
  const network = podNetwork();
  const valid = Array.from({ length: count / 2 }, (_, i) => ({ containerID: `present${i}`, ifname: 'eth0' }));
  let time = 0;
  for (const plugin of network.plugins.toReversed()) {
    const config = { cniVersion: '1.1.0', name: network.name, ...plugin, 'cni.dev/valid-attachments': valid };
    time += (await call(plugin.type, { contender, command: 'GC' }, config)).time;
  }
  const left =
    execFileSync('iptables-save', ['-t', 'nat'], { encoding: 'utf8' }).match(/^:CNI-[0-9a-f]{24} /gm) ?? [];
  if (left.length !== count / 2)
    throw new Error(`GC of ${contender} left ${left.length} of ${count / 2} chains`);
  return time;
}

/**
 * For the reference plugins: they have no GC before 1.5, and 1.9.1 leaves all chains of iptables, so that a
 * runtime has to DEL what is stale. The time is extrapolated from a few.
 */
async function deleteOneByOne(contender: Contender, count: number): Promise<number> {
  const network: Network = podNetwork();
  const sample = Math.min(5, count);
  const start = performance.now();
  for (let i = 0; i < sample; i++)
    await delChain(network, contender, {
      containerId: `present${i}`,
      netns: '',
      result: { cniVersion: '1.0.0', ips: [{ address: `10.77.128.${i}/16` }] },
    });
  return ((performance.now() - start) / sample) * count;
}
