/** Concurrency: pods that come and go together, on an idle host and on a busy one. */

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { availableParallelism } from 'node:os';
import {
  type Attached,
  addChain,
  addNamespace,
  type Contender,
  contenders,
  delChain,
  type Network,
  removeNamespace,
} from './call.ts';
import { clear, liveOnce, podNetwork } from './host.ts';
import { alternate, emptySamples, type Scenario } from './scenario.ts';

/** Many pods at once: how many come and go in a second, and how long the slowest of them waits. */
export function atOnce(count: number, rounds: number, seconds: number): Scenario {
  const name = `${count} at once`;
  return {
    name,
    async measure() {
      const [add, del, both] = [emptySamples(), emptySamples(), emptySamples()];
      const [slowestAdd, slowestDel] = [emptySamples(), emptySamples()];
      // The first pods create what all pods share.
      for (const contender of contenders) await liveOnce(podNetwork(), contender, 'first');
      await alternate(
        rounds,
        async (contender) => {
          const { added, deleted } = await attachConcurrently(count, contender);
          add[contender].push(count / (added.total / 1000));
          del[contender].push(count / (deleted.total / 1000));
          both[contender].push(count / ((added.total + deleted.total) / 1000));
          slowestAdd[contender].push(added.slowest);
          slowestDel[contender].push(deleted.slowest);
        },
        { warmUp: 0, fewest: 1, seconds },
      );
      clear();
      return [
        { name: `${name}: pods added`, unit: 'pods/s', samples: add },
        { name: `${name}: ADD, the slowest`, unit: 'ms', samples: slowestAdd },
        { name: `${name}: pods deleted`, unit: 'pods/s', samples: del },
        { name: `${name}: DEL, the slowest`, unit: 'ms', samples: slowestDel },
        { name: `${name}: pods added and deleted`, unit: 'pods/s', samples: both },
      ];
    },
  };
}

/** Runs a scenario while other processes, one for each processor, keep all of them busy. */
export function whileBusy(scenario: Scenario): Scenario {
  return {
    name: `busy host, ${scenario.name}`,
    async measure() {
      const spinning = Array.from({ length: availableParallelism() }, () =>
        spawn('setpriv', ['--pdeathsig', 'KILL', 'sh', '-c', 'while :; do :; done'], { stdio: 'ignore' }),
      );
      try {
        const lines = await scenario.measure();
        return lines.map((line) => ({ ...line, name: `busy host, ${line.name}` }));
      } finally {
        for (const process of spinning) {
          const ended = once(process, 'exit');
          process.kill();
          await ended;
        }
      }
    },
  };
}

/** How long concurrent calls took, and the one that waited longest, in milliseconds. */
interface ConcurrencyTime {
  total: number;
  slowest: number;
}

async function attachConcurrently(
  count: number,
  contender: Contender,
): Promise<{ added: ConcurrencyTime; deleted: ConcurrencyTime }> {
  const pods = Array.from({ length: count }, (_, i) => ({
    ...addNamespace(),
    containerId: `at-once-${i}`,
    network: podNetwork(30000 + 2 * i),
  }));
  const attached: (Attached & { network: Network })[] = [];
  const added = await clock(pods, async (pod) => {
    const { attached: one } = await addChain(pod.network, contender, pod);
    attached.push({ network: pod.network, ...one });
  });
  const deleted = await clock(attached, (pod) => delChain(pod.network, contender, pod));
  for (const { name } of pods) removeNamespace(name);
  return { added, deleted };
}

async function clock<T>(pods: readonly T[], work: (pod: T) => Promise<unknown>): Promise<ConcurrencyTime> {
  const start = performance.now();
  const times = await Promise.all(
    pods.map(async (pod) => {
      await work(pod);
      return performance.now() - start;
    }),
  );
  return { total: performance.now() - start, slowest: Math.max(...times) };
}
