/**
 * iptables, by transactions: one iptables-restore per family, however many rules it changes, so that rules
 * are never half in place and the lock is taken once. Sources: iptables(8), iptables-restore(8).
 */

import { CniError, ErrorCode } from '../errors.ts';
import { type Family, families } from '../ip.ts';
import { missingCapabilities, withMissing } from '../kernel/capabilities.ts';
import { type ExitResult, ProgramMissingError, type Programs, type RunOptions } from '../kernel/programs.ts';
import { eachTime } from '../kernel/sharing.ts';
import { lockSeconds, takeLock, withoutLock, xtablesLock } from './xtables-lock.ts';

/** Exit code of iptables when the lock is held, or the kernel's memory is short. */
const RESOURCE_PROBLEM = 4;

/** iptables refused a transaction, and nothing was done. */
export class IptablesError extends CniError {
  override readonly name = 'IptablesError';
}

/** This process may not use iptables: nothing is known of what is there, and nothing was done. */
export class IptablesDeniedError extends CniError {
  override readonly name = 'IptablesDeniedError';
}

/** The programs are not installed. */
export class IptablesMissingError extends CniError {
  override readonly name = 'IptablesMissingError';
}

/**
 * Carries out commands in one table, all or none.
 * @param commands lines of iptables-restore.
 * @throws IptablesError with what iptables said; IptablesDeniedError; IptablesMissingError when it is not
 *   installed; CniError TryAgainLater when another program holds the lock for too long.
 */
export async function commit(
  programs: Programs,
  family: Family,
  table: string,
  commands: readonly string[],
): Promise<void> {
  if (commands.length === 0) return;
  const kind = `iptables ${family} ${table} ${programs.path} ${xtablesLock(programs)}`;
  const piece = { commands, held: programs.held };
  await programs.together(kind, piece, {
    run: (pieces) => transact(programs, family, table, pieces),
    isRefusal: (error) => error instanceof IptablesError,
  });
}

/** What a call contributes to a transaction. */
interface Piece {
  readonly commands: readonly string[];
  /** Locks that the program has to hold. */
  readonly held: readonly number[];
}

/** Carries out one transaction, whichever calls its commands are from. */
async function transact(
  programs: Programs,
  family: Family,
  table: string,
  pieces: readonly Piece[],
): Promise<void> {
  const commands = pieces.flatMap((piece) => piece.commands);
  const held = pieces.flatMap((piece) => piece.held);
  const input = `*${table}\n${commands.join('\n')}\nCOMMIT\n`;
  const program = programOf(family, '-restore');
  using lock = await takeLock(programs, program);
  const { status, stderr } = await run(programs, program, ['--noflush', ...waiting], {
    input,
    ...lock?.options,
    inherit: [...(lock?.options.inherit ?? []), ...held],
  });
  if (status !== 0) throw failure(`${program} refused the rules in table "${table}"`, stderr, `\n${input}`);
}

/** The error of a program that failed. @param more what to show after what it said. */
export function failure(message: string, stderr: string, more = ''): CniError {
  // The last is all that iptables-legacy-restore says.
  const mayBeDenied =
    /permission denied|operation not permitted|must be root|unable to initialize table/i.test(stderr);
  const missing = mayBeDenied ? missingCapabilities() : [];
  const isDenied = missing.includes('CAP_NET_ADMIN') || missing.includes('CAP_NET_RAW');
  return isDenied
    ? new IptablesDeniedError(ErrorCode.Internal, withMissing(message, missing), stderr + more)
    : new IptablesError(ErrorCode.Internal, message, stderr + more);
}

/**
 * As {@link commit}, for commands that may be refused, such as checks whether rules exist.
 * @returns false when iptables refused them, and nothing was done.
 */
export async function tryCommit(
  programs: Programs,
  family: Family,
  table: string,
  commands: readonly string[],
): Promise<boolean> {
  try {
    await commit(programs, family, table, commands);
    return true;
  } catch (error) {
    if (error instanceof IptablesError) return false;
    throw error;
  }
}

/** The programs that each family needs, by their suffixes. */
const requiredPrograms = ['', '-restore'] as const;

/**
 * Makes sure that the programs of a family are installed. None is started.
 * @throws IptablesMissingError
 */
function requireInstalled(programs: Programs, family: Family): void {
  for (const suffix of requiredPrograms) {
    try {
      programs.find(programOf(family, suffix));
    } catch (error) {
      throw asMissing(programOf(family, suffix), error);
    }
  }
}

/** Tables that can be probed, each with a rule that has what CNI plugins need there. */
const probes = {
  filter: '-m comment --comment probe -m conntrack --ctstate ESTABLISHED -j ACCEPT',
  nat: '-m comment --comment probe -j MASQUERADE',
} as const;
export type ProbedTable = keyof typeof probes;

/**
 * What iptables says of a match or a target that the kernel does not have. With --test, iptables-nft says no
 * more than that, as it does not send the kernel anything, and exits with 0.
 */
const lacksExtension = /missing kernel module/;

/**
 * Makes sure that iptables can be used: some hosts have its programs, but no kernel modules for the table, or
 * for the matches and targets of rules. A rule is only tested, so that nothing is changed.
 * @throws like {@link commit}.
 */
export async function requireUsable(programs: Programs, family: Family, table: ProbedTable): Promise<void> {
  requireInstalled(programs, family);
  const program = programOf(family, '-restore');
  const look = programs.once ?? eachTime;
  await look(`whether ${program} of ${programs.path} can use ${table}`, async () => {
    const input = `*${table}\n-N CNI-PROBE\n-A CNI-PROBE ${probes[table]}\nCOMMIT\n`;
    const options = { input, ...withoutLock(programs, program) };
    const { status, stderr } = await run(programs, program, ['--noflush', '--test', ...waiting], options);
    if (status !== 0 || lacksExtension.test(stderr))
      throw failure(`${program} cannot be used for table "${table}"`, stderr);
  });
}

/** Whether iptables can be used. @throws like {@link requireUsable}, unless it refuses the rule. */
export async function isUsable(programs: Programs, family: Family, table: ProbedTable): Promise<boolean> {
  try {
    await requireUsable(programs, family, table);
    return true;
  } catch (error) {
    if (error instanceof IptablesError) return false;
    throw error;
  }
}

/** Whether the programs of every one of these families are installed. */
export function hasPrograms(programs: Programs, wanted: readonly Family[]): boolean {
  return wanted.every((family) =>
    requiredPrograms.every((suffix) => programs.has(programOf(family, suffix))),
  );
}

/**
 * Runs something for several families concurrently.
 * @throws the first error, when all have ended.
 */
export async function forFamilies(
  wanted: readonly Family[],
  work: (family: Family) => Promise<void>,
): Promise<void> {
  const outcomes = await Promise.allSettled(wanted.map(work));
  for (const outcome of outcomes) if (outcome.status === 'rejected') throw outcome.reason;
}

/** Like {@link forFamilies}, but a family whose programs are missing counts as having nothing to clean up. */
export async function forInstalledFamilies(
  work: (family: Family) => Promise<void>,
  wanted: readonly Family[] = families,
): Promise<void> {
  await forFamilies(wanted, async (family) => {
    try {
      await work(family);
    } catch (error) {
      if (!(error instanceof IptablesMissingError)) throw error;
    }
  });
}

/** Like {@link forInstalledFamilies}, and the same for a family whose table cannot be used. */
export async function forUsableFamilies(
  programs: Programs,
  table: ProbedTable,
  work: (family: Family) => Promise<void>,
  wanted?: readonly Family[],
): Promise<void> {
  await forInstalledFamilies(async (family) => {
    try {
      await work(family);
    } catch (error) {
      const isRefused = error instanceof IptablesError;
      if (!isRefused || (await isUsable(programs, family, table))) throw error;
    }
  }, wanted);
}

/** Options that make a program wait for the lock. */
export const waiting = ['--wait', String(lockSeconds)];

/** Name of a program of iptables, such as "ip6tables-restore". */
export function programOf(family: Family, suffix: '' | '-save' | '-restore'): string {
  return `${family === 4 ? 'iptables' : 'ip6tables'}${suffix}`;
}

/** Runs a program. @throws IptablesMissingError; CniError TryAgainLater when the lock is held too long. */
export async function run(
  programs: Programs,
  program: string,
  args: readonly string[],
  options: RunOptions,
): Promise<ExitResult> {
  let result: ExitResult;
  try {
    result = await programs.run(program, args, options);
  } catch (error) {
    throw asMissing(program, error);
  }
  const stderr = result.stderr.trim();
  if (result.status === RESOURCE_PROBLEM && /holding the xtables lock/.test(stderr))
    throw new CniError(
      ErrorCode.TryAgainLater,
      `Another program has held the iptables lock for ${lockSeconds} seconds. Try again, or find out which one it is with "fuser ${xtablesLock(programs)}"`,
      stderr,
    );
  return { ...result, stderr };
}

function asMissing(program: string, error: unknown): unknown {
  if (!(error instanceof ProgramMissingError)) return error;
  return new IptablesMissingError(
    ErrorCode.Internal,
    `"${program}" is not installed. Install the package "iptables" on the host`,
  );
}
