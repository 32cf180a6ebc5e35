/** The agent's memory, from its start until it has done thousands of calls. */

import { readFileSync } from 'node:fs';
import { agentPid, startAgent } from './agent.ts';
import { addChain, addNamespace, call, delChain, removeNamespace } from './call.ts';
import { clear, podNetwork } from './host.ts';
import { emptySamples, type Line, type Scenario } from './scenario.ts';

/** Pods that come and go at once. */
const concurrency = 8;

/**
 * Resident memory of an agent that is started for this: its own, and with the pages of the executable, which
 * are shared, and of which the page cache maps more than are used.
 * @param verbs how many it does: VERSION, and ADD and DEL of a pod's chain.
 * @param seconds after which no further pod comes.
 */
export function agentMemory(verbs: number, seconds: number): Scenario {
  return {
    name: 'memory',
    async measure() {
      await startAgent();
      const lines: Line[] = [];
      const note = (when: string) => {
        for (const [what, key] of [
          ['its own', 'RssAnon'],
          ['with pages of the executable', 'VmRSS'],
        ] as const)
          lines.push({
            name: `memory of the agent, ${what}: ${when}`,
            unit: 'MiB',
            samples: { ...emptySamples(), agent: [memoryOf(key)] },
          });
      };
      note('at its start');
      const end = performance.now() + 1000 * seconds;
      let done = 0;
      let notedEarly = false;
      const pods = Array.from({ length: concurrency }, (_, i) => ({
        ...addNamespace(),
        containerId: `memory${i}`,
        network: podNetwork(20000 + 2 * i),
      }));
      await Promise.all(
        pods.map(async (pod) => {
          while (done < verbs && performance.now() < end) {
            done += 1 + 2 * pod.network.plugins.length;
            await call('bridge', { contender: 'agent', command: 'VERSION' }, {});
            const { attached } = await addChain(pod.network, 'agent', pod);
            await delChain(pod.network, 'agent', attached);
            if (done >= 1000 && !notedEarly) {
              notedEarly = true;
              note('after 1,000 verbs');
            }
          }
        }),
      );
      note(`after ${done.toLocaleString('en')} verbs, ${concurrency} pods at once`);
      for (const { name } of pods) removeNamespace(name);
      clear();
      return lines;
    },
  };
}

/** A line of the agent's /proc/PID/status, in MiB. */
function memoryOf(key: 'VmRSS' | 'RssAnon'): number {
  const status = readFileSync(`/proc/${agentPid()}/status`, 'utf8');
  return Number(new RegExp(`^${key}:\\s+(\\d+)`, 'm').exec(status)?.[1]) / 1024;
}
