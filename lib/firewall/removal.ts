/**
 * Removing rules from iptables: in a single transaction if it is known what ADD made, else by listing just
 * the chains concerned.
 */

import type { Family } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import { removeUnfinishedHints } from './confirmed-rules.ts';
import { changeRules, deletionOf } from './ensure.ts';
import { commit, IptablesError } from './iptables.ts';
import { chainExists, isKnownToBeAbsent, list } from './listing.ts';
import { option, type Rule, renderRule, targetOf } from './rules.ts';

/** What {@link removeRules} is to remove. */
export interface Removal {
  /** The attachment's chain, which is deleted when nothing leads to it any more. */
  readonly chain?: string;
  /** The chain whose rules lead to it. */
  readonly from: string;
  /**
   * The rules as ADD made them, if that is known: those of {@link from}, and those of the chain unless
   * everything in it is the attachment's.
   */
  readonly known: readonly Rule[];
  /** Picks the attachment's rules from those of both chains, when they are not exactly as {@link known}. */
  own(rules: readonly Rule[]): readonly Rule[];
}

/**
 * Removes an attachment's rules, whichever suite made them. It is no error when there are none.
 * @returns the rules that it has removed from the chain that leads to the attachment's own.
 */
export async function removeRules(
  programs: Programs,
  family: Family,
  table: string,
  removal: Removal,
): Promise<readonly Rule[]> {
  const { chain, from, known } = removal;
  removeUnfinishedHints();
  // In nf_tables, a lookup costs far less than a program whose whole transaction is refused.
  if (chain && isKnownToBeAbsent(programs, family, table, chain)) return [];
  if (known.length > 0) {
    // When each rule of the chain is named, -X makes the transaction fail if there are others.
    const isWhole = known.some((rule) => rule.chain === chain);
    try {
      await commit(programs, family, table, [
        ...known.map((rule) => renderRule('-D', rule)),
        ...(isWhole ? [`-X ${chain}`] : deletionOf(chain)),
      ]);
      return known.filter((rule) => rule.chain === from);
    } catch (error) {
      if (!(error instanceof IptablesError)) throw error;
    }
  }
  // Nothing leads to a chain that is not there.
  if (chain && !(await chainExists(programs, family, table, chain))) return [];
  return changeRules(programs, family, table, async () => {
    const [leading = [], inside] = await Promise.all([
      list(programs, family, table, from),
      chain ? list(programs, family, table, chain) : undefined,
    ]);
    const removed = removal.own([...leading, ...(inside ?? [])]);
    const isUsed = leading.some((rule) => targetOf(rule) === chain && !removed.includes(rule));
    return {
      commands: [
        ...removed.map((rule) => renderRule('-D', rule)),
        ...(inside && !isUsed ? deletionOf(chain) : []),
      ],
      outcome: removed.filter((rule) => rule.chain === from),
    };
  });
}

/**
 * Removes attachments' chains with the rules that lead to them, whichever suite made them.
 * @param from the chain whose rules lead to them.
 * @param isStale tells by a chain and the comment on one of its rules, or on one that leads to it.
 * @returns the rules that it has removed from the chain `from`.
 */
export function removeChains(
  programs: Programs,
  family: Family,
  table: string,
  from: string,
  isStale: (chain: string, comment: string) => boolean,
): Promise<readonly Rule[]> {
  removeUnfinishedHints();
  return changeRules(programs, family, table, async () => {
    const chainOf = (rule: Rule) => (rule.chain === from ? targetOf(rule) : rule.chain) ?? '';
    const all = (await list(programs, family, table)) ?? [];
    const stale = new Set(
      all.filter((rule) => isStale(chainOf(rule), option(rule, '--comment') ?? '')).map(chainOf),
    );
    const removed = all.filter((rule) => rule.chain === from && stale.has(chainOf(rule)));
    return {
      commands: [...removed.map((rule) => renderRule('-D', rule)), ...[...stale].flatMap(deletionOf)],
      outcome: removed,
    };
  });
}
