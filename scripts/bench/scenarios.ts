/** What is measured, in the order of the table. */

import { hostLocal } from './addresses.ts';
import { call } from './call.ts';
import { atOnce, collection } from './concurrency.ts';
import { podNetwork } from './host.ts';
import { life, longChain, nftablesNetwork, withLegacy } from './life.ts';
import { eachPlugin } from './plugins.ts';
import { alternate, emptySamples, type Scenario } from './scenario.ts';
import { startUp } from './startup.ts';
import { dataPath } from './traffic.ts';

/** Everything. The first scenario is what the others are split by. @param quick with fewer calls. */
export function scenarios(quick: boolean): Scenario[] {
  const rounds = quick ? 7 : 15;
  const few = quick ? 5 : 9;
  return [
    // More calls: what all others are split by should be right.
    version(3 * rounds),
    startUp(rounds),
    ...(quick ? [0, 1000] : [0, 200, 1000]).map((pods) =>
      life(`life, ${pods.toLocaleString('en')} pods present`, podNetwork(), pods, rounds),
    ),
    life('chain of six', longChain(), 0, few),
    ...(quick ? [] : [life('life, nftables', nftablesNetwork(), 0, few, ['ours'])]),
    atOnce(quick ? 16 : 64, quick ? 1 : 3),
    collection(quick ? 100 : 200),
    ...(quick ? [10, 20_000] : [10, 1000, 20_000, 60_000]).map((count) => hostLocal(count, rounds)),
    ...(quick ? [] : eachPlugin(few)),
    dataPath(quick ? 1 : 3),
    // Last, as iptables goes on to warn of the tables.
    ...(quick ? [] : [withLegacy(life('life, iptables-legacy', podNetwork(), 0, few))]),
  ];
}

/** A start with next to nothing to do. */
function version(rounds: number): Scenario {
  return {
    name: 'VERSION',
    measure() {
      const samples = emptySamples();
      alternate(rounds, (suite, _, counts) => {
        const { time } = call('bridge', { suite, command: 'VERSION' }, {});
        if (counts) samples[suite].push(time);
      });
      return [{ name: 'VERSION', unit: 'ms', starts: 1, ...samples }];
    },
  };
}
