/**
 * Adds and changes rules of iptables, for everything that uses them: in the usual case by a single
 * transaction, without listing anything; when that is refused, by listing just the chains concerned, under a
 * lock, until they are as they should be.
 */

import type { Family } from '../ip.ts';
import { acquireLock, type FileLock, isLockHeld } from '../kernel/lock.ts';
import type { Programs } from '../kernel/programs.ts';
import { describeLost } from './backend.ts';
import { areConfirmed, rememberConfirmed } from './confirmed-rules.ts';
import { commit, IptablesError, programOf } from './iptables.ts';
import { hasRules, listOrAsk } from './listing.ts';
import { isSameRule, type Rule, renderRule, type SharedRule, targetOf } from './rules.ts';
import { outerLockMs } from './xtables-lock.ts';

/** Held by those whose first transaction was refused, so that they do not all repair the same thing. */
const lockFile = '/run/cni/iptables.lock';

/** How often rules are composed anew because others, who do not take the lock, were faster. */
const changeTries = 5;

/** What an attachment needs in one table. */
export interface RuleSet {
  /** Chains that attachments share, created where they are missing. */
  readonly chains: readonly string[];
  /** Rules that attachments share, added where they are missing. */
  readonly shared: readonly SharedRule[];
  readonly own: OwnRules;
}

/** What is the attachment's own. */
export interface OwnRules {
  /**
   * Its chain. Without one, the rules are looked for before they are added, as nothing else tells whether
   * they are there.
   */
  readonly chain?: string;
  /** The rules of its chain, and those that lead to it. */
  readonly rules: readonly Rule[];
  /**
   * Tells which of the rules that are in its chain, or lead to it from the chains of {@link rules}, are to be
   * removed because the latter replace them.
   */
  readonly outdated?: (found: readonly Rule[]) => readonly Rule[];
}

/** What {@link ensureRules} has done, for {@link undoChange}. */
export interface RuleChange {
  /** The attachment's chain, if it was created. */
  readonly chain?: string | undefined;
  readonly added: readonly Rule[];
  readonly removed: readonly Rule[];
}

/**
 * Makes sure that rules exist, each once.
 * @returns what it has changed of the attachment's own rules.
 * @throws IptablesError when iptables refuses them; CniError TryAgainLater when another program holds a lock
 *   for too long.
 */
export async function ensureRules(
  programs: Programs,
  family: Family,
  table: string,
  set: RuleSet,
): Promise<RuleChange> {
  const { shared, own } = set;
  if (own.chain) {
    const isSeen = areConfirmed(programs, family, table, shared);
    try {
      // -N fails when the chain exists, and -A when the chain that the rule is in or leads to does not.
      await commit(programs, family, table, [
        ...(isSeen ? [] : shared.map((rule) => renderRule('-C', rule))),
        `-N ${own.chain}`,
        ...own.rules.map((rule) => renderRule('-A', rule)),
      ]);
      if (!isSeen) rememberConfirmed(programs, family, table, shared);
      return { chain: own.chain, added: own.rules, removed: [] };
    } catch (error) {
      if (!(error instanceof IptablesError)) throw error;
    }
  } else if (own.rules.length === 0 && (await hasRules(programs, family, table, shared)))
    return { added: [], removed: [] };
  const change = await changeRules(programs, family, table, () =>
    composeChange(programs, family, table, set),
  );
  rememberConfirmed(programs, family, table, shared);
  return change;
}

/**
 * What {@link ensureRules} would add, whoever has removed it. Nothing is changed.
 * @returns a text for each chain, as in '2 rules of chain "POSTROUTING" in table "nat" of iptables'.
 * @throws like {@link ensureRules}.
 */
export async function missingRules(
  programs: Programs,
  family: Family,
  table: string,
  { shared, own }: Pick<RuleSet, 'shared' | 'own'>,
): Promise<string[]> {
  const wanted = [...shared, ...own.rules];
  if (await hasRules(programs, family, table, wanted)) return [];
  const chains = wanted.map(({ chain }) => chain);
  const listed = await listChains(programs, family, table, chains, wanted);
  const counts = new Map<string, number>();
  for (const rule of wanted)
    if (!isListed(listed, rule) && !(await isThereInOtherWords(programs, family, table, listed, rule)))
      counts.set(rule.chain, (counts.get(rule.chain) ?? 0) + 1);
  return [...counts].flatMap(([chain, count]) =>
    describeLost(chain, count, `table "${table}" of ${programOf(family, '')}`),
  );
}

/** Undoes what {@link ensureRules} has changed; what is shared stays. */
export async function undoChange(
  programs: Programs,
  family: Family,
  table: string,
  { chain, added, removed }: RuleChange,
): Promise<void> {
  const back = removed.map((rule) => renderRule('-A', rule));
  const outside = added.filter((rule) => rule.chain !== chain).map((rule) => renderRule('-D', rule));
  try {
    await commit(programs, family, table, [...outside, ...deletionOf(chain), ...back]);
  } catch (error) {
    // Others may use the chain by now.
    if (!chain || !(error instanceof IptablesError)) throw error;
    await commit(programs, family, table, [...outside, ...back]);
  }
}

/** Commands of iptables-restore, and their outcome. */
export interface Composition<T> {
  readonly commands: readonly string[];
  readonly outcome: T;
}

/**
 * Carries out the commands of `compose`. When iptables refuses them because somebody else was faster, they
 * are composed anew; when that gives the same commands, they themselves are at fault.
 */
export async function changeRules<T>(
  programs: Programs,
  family: Family,
  table: string,
  compose: () => Promise<Composition<T>>,
): Promise<T> {
  using lock = await lockIfPossible();
  const locked = programs.holding(lock);
  let refused: { commands: string; error: IptablesError } | undefined;
  for (let tries = 1; ; tries++) {
    const { commands, outcome } = await compose();
    const text = commands.join('\n');
    if (refused && (text === refused.commands || tries > changeTries)) throw refused.error;
    try {
      await commit(locked, family, table, commands);
      return outcome;
    } catch (error) {
      if (!(error instanceof IptablesError)) throw error;
      refused = { commands: text, error };
    }
  }
}

/** A full or read-only /run must not keep anybody from cleaning up: composing anew works without the lock. */
async function lockIfPossible(): Promise<FileLock | undefined> {
  try {
    return await acquireLock(lockFile, outerLockMs);
  } catch (error) {
    if (isLockHeld(error)) throw error;
    return undefined;
  }
}

async function composeChange(
  programs: Programs,
  family: Family,
  table: string,
  { chains, shared, own }: RuleSet,
): Promise<Composition<RuleChange>> {
  const wanted = [...shared, ...own.rules];
  const names = [...chains, ...wanted.map(({ chain }) => chain), own.chain ?? ''];
  const listed = await listChains(programs, family, table, names, wanted);
  const missing: string[] = [];
  for (const rule of shared)
    if (!isListed(listed, rule) && !(await isThereInOtherWords(programs, family, table, listed, rule)))
      missing.push(renderRule(rule.first ? '-I' : '-A', rule));
  const found = [...listed.values()].flatMap((rules = []) =>
    rules.filter((rule) => rule.chain === own.chain || targetOf(rule) === own.chain),
  );
  const removed = own.outdated?.(found) ?? [];
  const added = own.rules.filter((rule) => own.outdated || !isListed(listed, rule));
  const create = own.chain !== undefined && listed.get(own.chain) === undefined;
  return {
    commands: [
      ...chains.filter((chain) => listed.get(chain) === undefined).map((chain) => `-N ${chain}`),
      ...missing,
      ...removed.map((rule) => renderRule('-D', rule)),
      ...(create ? [`-N ${own.chain}`] : []),
      ...added.map((rule) => renderRule('-A', rule)),
    ],
    outcome: { chain: create ? own.chain : undefined, added, removed },
  };
}

/** Rules by chain; undefined for a chain that does not exist. */
type ListedChains = ReadonlyMap<string, readonly Rule[] | undefined>;

async function listChains(
  programs: Programs,
  family: Family,
  table: string,
  names: readonly string[],
  wanted: readonly Rule[],
): Promise<ListedChains> {
  return new Map(
    await Promise.all(
      [...new Set(names)]
        .filter(Boolean)
        .map(async (name) => [name, await listOrAsk(programs, family, table, name, wanted)] as const),
    ),
  );
}

function isListed(listed: ListedChains, rule: Rule): boolean {
  return Boolean(listed.get(rule.chain)?.some((one) => isSameRule(one, rule)));
}

/**
 * Asks iptables itself when a listed rule leads where the wanted one leads, as other releases may list it in
 * other words.
 */
async function isThereInOtherWords(
  programs: Programs,
  family: Family,
  table: string,
  listed: ListedChains,
  rule: Rule,
): Promise<boolean> {
  const isAlike = (one: Rule) => targetOf(one) === targetOf(rule);
  if (!listed.get(rule.chain)?.some(isAlike)) return false;
  return hasRules(programs, family, table, [rule]);
}

/** The commands that empty a chain and remove it. */
export function deletionOf(chain: string | undefined): string[] {
  return chain ? [`-F ${chain}`, `-X ${chain}`] : [];
}
