/**
 * Chains without rules, which a reference plugin leaves when it is killed: it creates a chain before its
 * rules, and on DEL once more to empty it. Nothing tells whose such a chain is, and nothing needs it.
 */

import type { Family } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import { findUnused } from '../kernel/unused.ts';
import { tryCommit } from './iptables.ts';
import { listEmptyChains } from './listing.ts';

/**
 * Deletes the chains that have no rules, that no rule leads to, and that nobody can be about to fill: an ADD
 * of another network may be under way.
 * @param isCollected tells by the name of a chain whether it may be deleted.
 */
export async function collectEmptyChains(
  programs: Programs,
  family: Family,
  table: string,
  isCollected: (chain: string) => boolean,
): Promise<void> {
  const look = async () => (await listEmptyChains(programs, family, table)).filter(isCollected);
  // One by one: iptables refuses to delete a chain that is in use by now.
  for (const chain of await findUnused(look, (name) => name))
    await tryCommit(programs, family, table, [`-X ${chain}`]);
}
