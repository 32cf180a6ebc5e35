/**
 * Chains without rules, which a reference plugin leaves that is killed: it creates a chain before its rules,
 * and on DEL once more to empty it. Nothing tells whose such a chain is, and nothing needs it.
 */

import { setTimeout as sleep } from 'node:timers/promises';
import type { Family } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import { tryRestore } from './iptables.ts';
import { listEmptyChains } from './listing.ts';

/** Far longer than a plugin takes from the creation of a chain to its first rule, in milliseconds. */
const addTimeMs = 1000;

/**
 * Deletes the chains that have no rules, that no rule leads to, and that nobody can be about to fill: an ADD
 * of another network may be under way.
 * @param isCollected tells by the name of a chain.
 */
export async function collectEmptyChains(
  programs: Programs,
  family: Family,
  table: string,
  isCollected: (chain: string) => boolean,
): Promise<void> {
  const before = (await listEmptyChains(programs, family, table)).filter(isCollected);
  if (before.length === 0) return;
  await sleep(addTimeMs);
  const still = new Set(await listEmptyChains(programs, family, table));
  // One by one: a chain that is in use by now is refused.
  for (const chain of before)
    if (still.has(chain)) await tryRestore(programs, family, table, [`-X ${chain}`]);
}
