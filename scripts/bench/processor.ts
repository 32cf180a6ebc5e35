/**
 * Processor time: what a pod costs the host, whoever does the work. This is the time in user mode and in the
 * kernel of the calls' processes, of the agent, and of all that they start. What kernel threads do later,
 * such as taking down interfaces, is attributed to nobody.
 */

import { processStat } from '../../lib/kernel/process.ts';
import { agentPid } from './agent.ts';
import {
  type Attached,
  addChain,
  addNamespace,
  type Contender,
  delChain,
  type Network,
  removeNamespace,
} from './call.ts';
import { clear, liveOnce, podNetwork } from './host.ts';
import { alternate, emptySamples, type Scenario } from './scenario.ts';

/** Milliseconds per tick, the unit in /proc/PID/stat. Source: proc(5); Linux always shows 100 per second. */
const tick = 10;

/** ADD and DEL of a chain, and both. @param lives how many make up a sample: ticks are too coarse for one. */
export function processorTime(lives: number, rounds: number): Scenario {
  const name = 'processor time';
  return {
    name,
    async measure() {
      const [add, del, whole] = [emptySamples(), emptySamples(), emptySamples()];
      const network = podNetwork();
      await alternate(
        rounds,
        async (contender, _, counts) => {
          // Creates what all pods share, so that only what belongs to the pods is measured.
          await liveOnce(network, contender, 'first');
          const pods = Array.from({ length: lives }, (_, i) => ({
            ...addNamespace(),
            containerId: `life${i}`,
            network: podNetwork(20000 + 2 * i),
          }));
          const before = used(contender);
          const attached: (Attached & { network: Network })[] = [];
          for (const { network, ...pod } of pods)
            attached.push({ network, ...(await addChain(network, contender, pod)).attached });
          const between = used(contender);
          for (const one of attached) await delChain(one.network, contender, one);
          const after = used(contender);
          for (const pod of pods) removeNamespace(pod.name);
          if (!counts) return;
          add[contender].push((between - before) / lives);
          del[contender].push((after - between) / lives);
          whole[contender].push((after - before) / lives);
        },
        { warmUp: 1, seconds: 45, fewest: 3 },
      );
      clear();
      return [
        { name: `${name}: chain ADD`, unit: 'ms', samples: add },
        { name: `${name}: chain DEL`, unit: 'ms', samples: del },
        { name: `${name}: whole life`, unit: 'ms', samples: whole },
      ];
    },
  };
}

/** Processor time that the calls of a contender have used so far, in milliseconds. */
function used(contender: Contender): number {
  const own = timesOf('self');
  const calls = own.childrenUser + own.childrenSystem;
  if (contender !== 'agent') return calls;
  const { user, system, childrenUser, childrenSystem } = timesOf(agentPid());
  return calls + user + system + childrenUser + childrenSystem;
}

/** Times of a process, and of the children that it has waited for, in milliseconds. Source: proc(5). */
function timesOf(process: number | 'self') {
  const [user, system, childrenUser, childrenSystem] = processStat(process)
    .slice(14 - 3, 18 - 3)
    .map((ticks) => tick * Number(ticks)) as [number, number, number, number];
  return { user, system, childrenUser, childrenSystem };
}
