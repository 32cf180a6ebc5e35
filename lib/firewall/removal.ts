/**
 * How rules go from iptables: a single transaction where it is known what ADD made, else a look at just the
 * chains concerned.
 */

import type { Family } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import { changeRules, deletionOf } from './ensure.ts';
import { commit, IptablesError } from './iptables.ts';
import { chainExists, isKnownToBeAbsent, list } from './listing.ts';
import { option, type Rule, renderRule, targetOf } from './rules.ts';

/** What {@link removeRules} is to remove. */
export interface Removal {
  /** The attachment's chain, which goes when nothing leads there any more. */
  readonly chain?: string;
  /** Chain that leads there. */
  readonly from: string;
  /**
   * The rules as ADD made them, if that is known: those of {@link from}, and those of the chain unless all
   * that it holds is the attachment's.
   */
  readonly known: readonly Rule[];
  /** Tells the attachment's rules among those of both chains, when they are not quite like that. */
  own(rules: readonly Rule[]): readonly Rule[];
}

/**
 * Removes an attachment's rules, whoever made them. What is not there is no error.
 * @returns those that it has removed from the chain that leads to the attachment's own.
 */
export async function removeRules(
  programs: Programs,
  family: Family,
  table: string,
  removal: Removal,
): Promise<readonly Rule[]> {
  const { chain, from, known } = removal;
  // In nf_tables, a look costs far less than a program that is refused with all that it was to do.
  if (chain && isKnownToBeAbsent(programs, family, table, chain)) return [];
  if (known.length > 0) {
    // Where each rule of the chain is named, -X refuses it all if there are others.
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
 * Removes attachments' chains with the rules that lead there, whoever made them.
 * @param from chain that leads there.
 * @param isStale tells by a chain and the comment on one of its rules, or on one that leads there.
 * @returns the rules that it has removed from the chain that leads there.
 */
export function removeChains(
  programs: Programs,
  family: Family,
  table: string,
  from: string,
  isStale: (chain: string, comment: string) => boolean,
): Promise<readonly Rule[]> {
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
