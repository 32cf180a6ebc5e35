/** The rules of both variants of iptables, which the kernel applies side by side. */

import { saysImpossible } from '../../lib/firewall/listing.ts';
import type { Family } from '../../lib/ip.ts';
import { type ExitResult, ProgramMissingError, type Programs } from '../../lib/kernel/programs.ts';

/** The two ways in which iptables keeps rules in the kernel. */
type Variant = 'nft' | 'legacy';

/** The rules of one variant and family. */
export interface SavedRules {
  readonly variant: Variant;
  readonly family: Family;
  /** Program that changes them, such as "iptables-legacy". */
  readonly program: string;
  /** Whether "iptables" is this variant, so that the plugins' own rules are here. */
  readonly isInUse: boolean;
  /** Rules by table, without the tables that cannot be listed. */
  readonly tables: ReadonlyMap<string, readonly string[]>;
  /** Why tables cannot be listed, if any cannot. */
  readonly problem: Problem | undefined;
}

/** Why tables cannot be listed. */
export interface Problem {
  readonly message: string;
  /** Whether they hold what nft has made, and iptables has no words for. */
  readonly isOfNft: boolean;
}

/** Lists the rules. Tables that nobody uses are not created. Without the programs, there are none. */
export async function savedRules(programs: Programs): Promise<SavedRules[]> {
  const found: SavedRules[] = [];
  for (const family of [4, 6] as const) {
    const base = family === 4 ? 'iptables' : 'ip6tables';
    const inUse = await variantOf(programs, base);
    if (!inUse) continue;
    for (const variant of ['nft', 'legacy'] as const) {
      const isInUse = variant === inUse;
      const special = `${base}-${variant}`;
      // Where there is only one variant, its programs may lack the longer names.
      const saved =
        (await output(programs, `${special}-save`)) ??
        (isInUse ? await output(programs, `${base}-save`) : undefined);
      const program = isInstalled(programs, special) ? special : base;
      if (!saved) continue;
      found.push({
        variant,
        family,
        program,
        isInUse,
        tables: tablesOf(saved.stdout),
        problem: problemOf(saved, variant),
      });
    }
  }
  return found;
}

/** The variant of an iptables program. @returns undefined when it is not installed. */
async function variantOf(programs: Programs, program: string): Promise<Variant | undefined> {
  const version = await output(programs, program, ['--version']);
  return version && (version.stdout.includes('nf_tables') ? 'nft' : 'legacy');
}

async function output(
  programs: Programs,
  program: string,
  args: readonly string[] = [],
): Promise<ExitResult | undefined> {
  try {
    return await programs.run(program, args);
  } catch (error) {
    if (error instanceof ProgramMissingError) return undefined;
    throw error;
  }
}

/** What iptables-save says of tables that it cannot list. A kernel that cannot have tables has no rules. */
function problemOf({ status, stdout, stderr }: ExitResult, variant: Variant): Problem | undefined {
  const incompatible = `${stdout}\n${stderr}`.match(/^# Table .* is incompatible.*$/gm);
  if (incompatible) {
    const lines = new Set(incompatible.map((line) => line.slice(2)));
    return { message: [...lines].join('; '), isOfNft: variant === 'nft' };
  }
  if (status === 0 || saysImpossible(stderr)) return undefined;
  const ended = status === undefined ? 'A signal ended the program' : `The program ended with ${status}`;
  return {
    message: stderr.trim() || `${ended}, and said nothing`,
    isOfNft: variant === 'nft' && stderr.includes('Parsing nftables rule failed'),
  };
}

function isInstalled(programs: Programs, program: string): boolean {
  try {
    programs.find(program);
    return true;
  } catch {
    return false;
  }
}

/**
 * Lines of iptables-save by table: policies as ":CHAIN POLICY" and rules as "-A CHAIN …". A table that does
 * not end with "COMMIT" is left out: at a rule that it has no words for, the program ends.
 */
function tablesOf(text: string): Map<string, string[]> {
  const tables = new Map<string, string[]>();
  let name = '';
  let lines: string[] = [];
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) {
      name = line.slice(1);
      lines = [];
    } else if (line === 'COMMIT') tables.set(name, lines);
    else if (line.startsWith(':') || line.startsWith('-A')) lines.push(line);
  }
  return tables;
}
