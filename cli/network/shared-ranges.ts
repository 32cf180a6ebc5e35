/** The ranges that a network shares with other nodes, and how far they are used up. */

import type { Suite } from '../../main.ts';
import { ipamsOf } from '../ipam.ts';
import type { NetworkList } from '../libcni/conflist.ts';
import type { KnownUse } from '../printed.ts';

/**
 * Asks how far a network's shared ranges are used up. This takes a few seconds at most.
 * @returns the ranges, without a number of used addresses where nobody answers, and the reasons for that.
 */
export async function sharedRangesOf(
  network: NetworkList,
  suite: Suite,
): Promise<{ ranges: KnownUse[]; problems: string[] }> {
  const problems = new Set<string>();
  const ranges: KnownUse[] = [];
  for (const { plugin, config } of await ipamsOf(network, suite)) {
    if (!plugin.sharedRanges) continue;
    try {
      const found = plugin.sharedRanges(config());
      const used = await Promise.allSettled(found.map((one) => one.countUsed()));
      for (const [i, { subnet, range, gateway, capacity }] of found.entries()) {
        const counted = used[i]!;
        const shared = { subnets: [subnet], gateways: gateway ? [gateway] : [], capacity };
        const count = counted.status === 'fulfilled' ? counted.value : undefined;
        ranges.push({ network: network.name, range, ...shared, used: count });
        if (counted.status === 'rejected')
          problems.add(`Nobody tells how many addresses are used. ${(counted.reason as Error).message}`);
      }
    } catch (error) {
      problems.add((error as Error).message);
    }
  }
  return { ranges, problems: [...problems] };
}
