/** What iptables has: the rules of a chain or table, and whether certain ones are there. */

import { CniError, ErrorCode } from '../errors.ts';
import type { Family } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import { hasChain } from '../netlink/nftables/objects.ts';
import { failure, IptablesError, programOf, run, tryCommit, waiting } from './iptables.ts';
import { nftTableOf, withNftables } from './nftables.ts';
import { parseRules, type Rule, renderRule, ruleKey, targetOf } from './rules.ts';
import { isNftVariant, withoutLock } from './xtables-lock.ts';

/**
 * iptables cannot list a chain, or a table with such a chain, because it holds rules of nft that iptables
 * cannot express. It still accepts commands.
 */
export class UnlistableError extends CniError {
  override readonly name = 'UnlistableError';
}

/**
 * Whether iptables says that the kernel cannot have the table, and so has no rules in it: it was started with
 * "ipv6.disable=1", or a module is missing. The last two are from iptables-nft, without nfnetlink and without
 * nf_tables.
 * @param stderr what it says.
 */
export function saysImpossible(stderr: string): boolean {
  return /Address family not supported|Table does not exist|iptables who\?|nft: Protocol not supported|generation id: Invalid argument/.test(
    stderr,
  );
}

/**
 * Lists rules.
 * @param chain lists only its rules, which costs far less on a full host; those of every chain when left out.
 * @returns undefined when there is no such chain or table.
 * @throws like {@link commit}; UnlistableError.
 */
export async function list(
  programs: Programs,
  family: Family,
  table: string,
  chain?: string,
): Promise<Rule[] | undefined> {
  const seen = await seenTable(programs, family, table);
  if (seen) return chain ? seen.chains.get(chain) : [...seen.chains.values()].flat();
  const program = chain ? programOf(family, '') : programOf(family, '-save');
  const args = chain ? [...waiting, '-t', table, '-S', chain] : ['-t', table];
  const { status, stdout, stderr } = await run(programs, program, args, withoutLock(programs, program));
  // iptables-nft says so of chains that do not exist as well; iptables-nft-save prints it instead of a
  // table's rules.
  if (/^# Table .* is incompatible|is incompatible, use/m.test(`${stdout}\n${stderr}`)) {
    if (chain && !chainExistsInNftables(family, table, chain)) return undefined;
    throw unlistable(family, table, chain, stderr || stdout.trim());
  }
  if (status === 0) return parseRules(stdout);
  if (saysImpossible(stderr)) return undefined;
  if (chain && /No chain|does not exist|doesn't exist/.test(stderr)) return undefined;
  throw failure(`${program} cannot list table "${table}"`, stderr);
}

/** The chains of a table that have no rules, and that no rule leads to. */
export async function listEmptyChains(programs: Programs, family: Family, table: string): Promise<string[]> {
  const text = await save(programs, family, table);
  const rules = parseRules(text);
  const used = new Set(rules.flatMap((rule) => [rule.chain, targetOf(rule)]));
  return [...text.matchAll(/^:(\S+) - /gm)].map(([, chain]) => chain!).filter((chain) => !used.has(chain));
}

/** What iptables-save prints of a table, "" when there is no such table. @throws IptablesError */
async function save(programs: Programs, family: Family, table: string): Promise<string> {
  const program = programOf(family, '-save');
  const { status, stdout, stderr } = await run(
    programs,
    program,
    ['-t', table],
    withoutLock(programs, program),
  );
  if (status === 0) return stdout;
  if (saysImpossible(stderr)) return '';
  throw new IptablesError(ErrorCode.Internal, `${program} cannot list table "${table}"`, stderr);
}

/** A table as it was when a read-only process first looked at it. */
interface SeenTable {
  /** Rules by chain. */
  readonly chains: ReadonlyMap<string, Rule[]>;
  /** {@link ruleKey} of every rule. */
  readonly keys: ReadonlySet<string>;
}

/** @returns undefined when each call has to look for itself, or the table cannot be listed as a whole. */
async function seenTable(programs: Programs, family: Family, table: string): Promise<SeenTable | undefined> {
  return await programs.once?.(`iptables ${family} ${table} ${programs.path}`, async () => {
    const text = await save(programs, family, table).catch((error: unknown) => {
      if (error instanceof IptablesError) return '# Table is incompatible';
      throw error;
    });
    if (/^# Table .*is incompatible/m.test(text)) return undefined;
    const chains = new Map<string, Rule[]>();
    for (const [, chain] of text.matchAll(/^:(\S+) /gm)) chains.set(chain!, []);
    const rules = parseRules(text);
    for (const rule of rules) chains.get(rule.chain)?.push(rule);
    let keys: Set<string> | undefined;
    return {
      chains,
      // Made only when needed: on a full host, a table has thousands of rules.
      get keys() {
        keys ??= new Set(rules.map(ruleKey));
        return keys;
      },
    };
  });
}

/**
 * Whether all of the rules exist. If they are not listed word for word, iptables is asked, as other releases
 * may list them in other words.
 * @throws like {@link commit}.
 */
export async function hasRules(
  programs: Programs,
  family: Family,
  table: string,
  rules: readonly Rule[],
): Promise<boolean> {
  const seen = await seenTable(programs, family, table);
  if (seen && rules.every((rule) => seen.keys.has(ruleKey(rule)))) return true;
  return tryCommit(
    programs,
    family,
    table,
    rules.map((rule) => renderRule('-C', rule)),
  );
}

/**
 * As {@link list}, for a chain that nft may have put rules into as well: where it cannot be listed, iptables
 * is asked for single rules.
 * @param wanted the rules to ask for; those of other chains are left out.
 */
export async function listOrAsk(
  programs: Programs,
  family: Family,
  table: string,
  chain: string,
  wanted: readonly Rule[],
): Promise<Rule[] | undefined> {
  try {
    return await list(programs, family, table, chain);
  } catch (error) {
    if (!(error instanceof UnlistableError)) throw error;
  }
  const present: Rule[] = [];
  for (const rule of wanted)
    if (rule.chain === chain && (await tryCommit(programs, family, table, [renderRule('-C', rule)])))
      present.push(rule);
  return present;
}

function unlistable(family: Family, table: string, chain: string | undefined, said: string): UnlistableError {
  const { family: name } = nftTableOf(family, table);
  return new UnlistableError(
    ErrorCode.Internal,
    `${programOf(family, chain ? '' : '-save')} cannot list ${chain ? `chain "${chain}" of ` : ''}table "${table}", as it holds rules that nft made and iptables has no words for. ` +
      `Look at them with "nft list ${chain ? `chain ${name} ${table} ${chain}` : `table ${name} ${table}`}", move them to a table of their own, and try again`,
    said,
  );
}

/** Whether there is a chain. @throws like {@link commit}. */
export async function chainExists(
  programs: Programs,
  family: Family,
  table: string,
  chain: string,
): Promise<boolean> {
  if (isNftVariant(programs, programOf(family, ''))) return chainExistsInNftables(family, table, chain);
  return (await list(programs, family, table, chain)) !== undefined;
}

/**
 * Whether a chain does not exist, as far as can be told without starting a program: always false for
 * iptables-legacy.
 * @throws NftablesError
 */
export function isKnownToBeAbsent(programs: Programs, family: Family, table: string, chain: string): boolean {
  return isNftVariant(programs, programOf(family, '')) && !chainExistsInNftables(family, table, chain);
}

function chainExistsInNftables(family: Family, table: string, chain: string): boolean {
  return withNftables((socket) => hasChain(socket, nftTableOf(family, table), chain));
}
