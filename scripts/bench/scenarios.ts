/** What is measured, in the order of the table. */

import { hostLocal } from './addresses.ts';
import { call } from './call.ts';
import { collection } from './collection.ts';
import { dnsname, multus, openVswitch } from './companions.ts';
import { atOnce, whileBusy } from './concurrency.ts';
import { podNetwork } from './host.ts';
import { life, longChain, nftablesNetwork, withLegacy } from './life.ts';
import { listing } from './listing.ts';
import { agentMemory } from './memory.ts';
import { eachPlugin } from './plugins.ts';
import { processorTime } from './processor.ts';
import { alternate, emptySamples, type Scenario } from './scenario.ts';
import { startUp } from './startup.ts';
import { dataPath } from './traffic.ts';

/** All scenarios. @param quick with fewer calls. @param patient with many minutes for the agent's memory. */
export function scenarios(quick: boolean, patient: boolean): Scenario[] {
  const rounds = quick ? 6 : 15;
  const few = quick ? 5 : 9;
  return [
    version(3 * rounds),
    startUp(rounds),
    ...(quick ? [0, 1000] : [0, 200, 1000]).map((pods) =>
      life(`life, ${pods.toLocaleString('en')} pods present`, podNetwork(), pods, rounds),
    ),
    processorTime(quick ? 4 : 10, quick ? 1 : 5),
    life('chain of six', longChain(), 0, few),
    life('life, nftables', nftablesNetwork(), 0, few),
    quick ? atOnce(16, 1, 10) : atOnce(64, 3, 75),
    whileBusy(quick ? atOnce(16, 1, 10) : atOnce(64, 3, 75)),
    collection(quick ? 100 : 200, quick ? 1 : 3),
    ...(quick ? [10] : [60, 1000]).map((pods) => listing(pods, few)),
    ...(quick ? [10, 20_000] : [10, 1000, 20_000, 60_000]).map((count) => hostLocal(count, rounds)),
    ...(quick ? [] : eachPlugin(few)),
    openVswitch(quick ? [5] : [5, 500], rounds),
    dnsname(quick ? 3 : 100, few),
    multus(few),
    dataPath(quick ? 1 : 3),
    agentMemory(quick ? 1000 : 10_000, quick ? 10 : patient ? 900 : 90),
    // This comes last, as from then on iptables warns about the legacy tables.
    withLegacy(life('life, iptables-legacy', podNetwork(), 0, few)),
  ];
}

/** A start with next to nothing to do. */
function version(rounds: number): Scenario {
  return {
    name: 'VERSION',
    async measure() {
      const samples = emptySamples();
      await alternate(rounds, async (contender, _, counts) => {
        const { time } = await call('bridge', { contender, command: 'VERSION' }, {});
        if (counts) samples[contender].push(time);
      });
      return [{ name: 'VERSION', unit: 'ms', samples }];
    },
  };
}
