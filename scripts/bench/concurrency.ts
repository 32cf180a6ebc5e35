/** Concurrency: pods that come and go together, and garbage collection of many at once. */

import { execFileSync } from 'node:child_process';
import {
  type Attached,
  addNamespace,
  bothSuites,
  call,
  delChain,
  removeNamespace,
  runChainAsync,
  type Suite,
} from './call.ts';
import { clear, liveOnce, podNetwork, populate } from './host.ts';
import { emptySamples, type Scenario } from './scenario.ts';

/** Many pods at once: how many come and go in a second, and what the slowest of them waits. */
export function atOnce(count: number, rounds: number): Scenario {
  const name = `${count} at once`;
  return {
    name,
    async measure() {
      const [add, del, both] = [emptySamples(), emptySamples(), emptySamples()];
      const [slowestAdd, slowestDel] = [emptySamples(), emptySamples()];
      // Creates what all pods share.
      for (const suite of bothSuites) liveOnce(podNetwork(), suite, 'first');
      for (let round = 0; round < rounds; round++)
        for (const suite of bothSuites) {
          const { added, deleted } = await attachConcurrently(count, suite);
          add[suite].push(count / (added.total / 1000));
          del[suite].push(count / (deleted.total / 1000));
          both[suite].push(count / ((added.total + deleted.total) / 1000));
          slowestAdd[suite].push(added.slowest);
          slowestDel[suite].push(deleted.slowest);
        }
      clear();
      const rate = { unit: 'pods/s', rate: true };
      return [
        { name: `${name}: pods added`, ...rate, ...add },
        { name: `${name}: ADD, the slowest`, unit: 'ms', ...slowestAdd },
        { name: `${name}: pods deleted`, ...rate, ...del },
        { name: `${name}: DEL, the slowest`, unit: 'ms', ...slowestDel },
        { name: `${name}: pods added and deleted`, ...rate, ...both },
      ];
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
  suite: Suite,
): Promise<{ added: ConcurrencyTime; deleted: ConcurrencyTime }> {
  const pods = Array.from({ length: count }, (_, i) => ({
    ...addNamespace(),
    containerId: `at-once-${i}`,
    network: podNetwork(30000 + 2 * i),
  }));
  const attached: (Attached & { network: (typeof pods)[0]['network'] })[] = [];
  const added = await clock(pods, async (pod) => {
    const result = await runChainAsync(pod.network, 'ADD', suite, pod);
    attached.push({ ...pod, result: result! });
  });
  const deleted = await clock(attached, (pod) => runChainAsync(pod.network, 'DEL', suite, pod));
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

/** GC, which this version of the reference lacks: there a runtime can only DEL what is stale, one by one. */
export function collection(count: number): Scenario {
  const name = `GC of ${count.toLocaleString('en')}, half stale`;
  return {
    name,
    measure() {
      const network = podNetwork();
      liveOnce(network, 'ours', 'first');
      populate(count);
      const valid = Array.from({ length: count / 2 }, (_, i) => ({
        containerID: `present${i}`,
        ifname: 'eth0',
      }));
      let ours = 0;
      for (const plugin of network.plugins.toReversed())
        ours += call(
          plugin.type,
          { suite: 'ours', command: 'GC' },
          { cniVersion: '1.1.0', name: network.name, ...plugin, 'cni.dev/valid-attachments': valid },
        ).time;
      const left =
        execFileSync('iptables-save', ['-t', 'nat'], { encoding: 'utf8' }).match(/^:CNI-[0-9a-f]{24} /gm) ??
        [];
      if (left.length !== count / 2) throw new Error(`GC left ${left.length} of ${count / 2} chains`);
      clear();
      liveOnce(network, 'reference', 'first');
      populate(count);
      // A few of them tell what all would take.
      const sample = Math.min(5, count / 2);
      const start = performance.now();
      for (let i = 0; i < sample; i++)
        delChain(network, 'reference', {
          containerId: `present${i}`,
          netns: '',
          result: { cniVersion: '1.0.0', ips: [{ address: `10.77.128.${i}/16` }] },
        });
      const reference = ((performance.now() - start) / sample) * (count / 2);
      clear();
      return [{ name, unit: 'ms', ours: [ours], reference: [reference] }];
    },
  };
}
