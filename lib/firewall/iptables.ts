/**
 * iptables, by transactions: one iptables-restore a family, however many rules it changes, so that the rules are
 * never half there and the lock is taken once. Sources: iptables(8), iptables-restore(8).
 */

import { CniError, ErrorCode } from '../errors.ts';
import type { Family } from '../ip.ts';
import { type ExitResult, ProgramMissingError, type Programs } from '../kernel/programs.ts';

/** Both families, for loops over them. */
export const families: readonly Family[] = [4, 6];

/** Seconds to wait for another program to let go of the iptables lock. */
const lockSeconds = 10;

/** A command of iptables-restore, such as `-A POSTROUTING -s 10.1.0.5/32 -j ACCEPT`. */
export type Command = string;

/** iptables refused a transaction, of which nothing was done. */
export class IptablesError extends CniError {
  override readonly name = 'IptablesError';
}

/** The programs are not installed. */
export class IptablesMissingError extends CniError {
  override readonly name = 'IptablesMissingError';
}

/** Quotes a word for iptables-restore. @throws Error when it could end the line and begin a command of its own. */
export function quote(word: string): string {
  if (/[\n\r\0]/.test(word))
    throw new Error(`"${word}" has a line break, which no rule can hold. Take it out`);
  return /^[\w./:,!-]+$/.test(word) ? word : `"${word.replaceAll(/[\\"]/g, '\\$&')}"`;
}

/** The match for a comment, to put into a rule. */
export function comment(text: string): string {
  return `-m comment --comment ${quote(text)}`;
}

/**
 * Carries out commands in one table, all or none.
 * @throws IptablesError with what iptables said; IptablesMissingError when it is not installed; CniError TryAgainLater when
 *   another program holds the lock for too long.
 */
export async function restore(
  programs: Programs,
  family: Family,
  table: string,
  commands: readonly Command[],
): Promise<void> {
  if (commands.length === 0) return;
  const input = `*${table}\n${commands.join('\n')}\nCOMMIT\n`;
  const program = programOf(family, '-restore');
  const { status, stderr } = await run(
    programs,
    program,
    ['--noflush', '--wait', String(lockSeconds)],
    input,
  );
  if (status === 0) return;
  if (status === 4 && /lock/.test(stderr))
    throw new CniError(
      ErrorCode.TryAgainLater,
      `Another program has held the iptables lock for ${lockSeconds} seconds. Try again, or find out which one it is with "fuser /run/xtables.lock"`,
      stderr,
    );
  throw new IptablesError(
    ErrorCode.Internal,
    `${program} refused the rules in table "${table}"`,
    `${stderr}\n${input}`,
  );
}

/** A rule as iptables lists it. */
export interface Rule {
  /** Chain it is in. */
  chain: string;
  /** What follows `-A CHAIN`, as listed: fit for deleting the rule again. */
  spec: string;
  /** The same in words, unquoted. */
  words: string[];
}

/**
 * Lists rules.
 * @param chain only those of this chain, which costs far less on a full node; of every chain when left out.
 * @returns undefined when there is no such chain or table.
 */
export async function list(
  programs: Programs,
  family: Family,
  table: string,
  chain?: string,
): Promise<Rule[] | undefined> {
  const program = chain ? programOf(family, '') : programOf(family, '-save');
  const args = chain ? ['--wait', String(lockSeconds), '-t', table, '-S', chain] : ['-t', table];
  const { status, stdout, stderr } = await run(programs, program, args, '');
  if (status !== 0) {
    if (chain && /No chain|does not exist|doesn't exist|incompatible/.test(stderr)) return undefined;
    throw new IptablesError(ErrorCode.Internal, `${program} cannot list table "${table}"`, stderr);
  }
  return stdout.split('\n').flatMap((line) => {
    const match = /^-A (\S+) ?(.*)$/.exec(line);
    return match ? [{ chain: match[1]!, spec: match[2]!, words: splitWords(match[2]!) }] : [];
  });
}

/** The word behind an option, such as the chain behind "-j". */
export function option(rule: Rule, name: string): string | undefined {
  const at = rule.words.indexOf(name);
  return at < 0 ? undefined : rule.words[at + 1];
}

/** @throws IptablesMissingError when the programs of a family are not installed. */
export async function requireInstalled(programs: Programs, family: Family): Promise<void> {
  await run(programs, programOf(family, '-restore'), ['--version'], '');
}

/**
 * Runs something for both families, beside one another.
 * @throws the first error, when both have ended.
 */
export async function forFamilies(
  wanted: readonly Family[],
  work: (family: Family) => Promise<void>,
): Promise<void> {
  const outcomes = await Promise.allSettled(wanted.map(work));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}

/** Like {@link forFamilies} over both, where a family whose programs are missing has nothing to clean up. */
export async function forInstalledFamilies(work: (family: Family) => Promise<void>): Promise<void> {
  await forFamilies(families, async (family) => {
    try {
      await work(family);
    } catch (error) {
      if (!(error instanceof IptablesMissingError)) throw error;
    }
  });
}

function programOf(family: Family, suffix: '' | '-save' | '-restore'): string {
  return `${family === 4 ? 'iptables' : 'ip6tables'}${suffix}`;
}

/** Words of a listed rule; those with blanks are in double quotes with backslashes. */
function splitWords(spec: string): string[] {
  return Array.from(spec.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g), ([, quoted, plain]) =>
    quoted === undefined ? plain! : quoted.replaceAll(/\\(.)/g, '$1'),
  );
}

async function run(
  programs: Programs,
  program: string,
  args: readonly string[],
  input: string,
): Promise<ExitResult> {
  try {
    const { status, stdout, stderr } = await programs.run(program, args, input);
    return { status, stdout, stderr: stderr.trim() };
  } catch (error) {
    if (!(error instanceof ProgramMissingError)) throw error;
    throw new IptablesMissingError(
      ErrorCode.Internal,
      `"${program}" is not installed. Install the package "iptables" on the node`,
    );
  }
}
