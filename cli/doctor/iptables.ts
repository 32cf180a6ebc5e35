/** The rules of both variants of iptables, which the kernel applies side by side. */

import type { Family } from '../../lib/ip.ts';
import { ProgramMissingError, type Programs } from '../../lib/kernel/programs.ts';

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
  /** Rules by table. */
  readonly tables: ReadonlyMap<string, readonly string[]>;
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
      const text =
        (await output(programs, `${special}-save`)) ?? (isInUse && (await output(programs, `${base}-save`)));
      const program = isInstalled(programs, special) ? special : base;
      if (typeof text === 'string') found.push({ variant, family, program, isInUse, tables: tablesOf(text) });
    }
  }
  return found;
}

/** The variant of an iptables program. @returns undefined when it is not installed. */
async function variantOf(programs: Programs, program: string): Promise<Variant | undefined> {
  const text = await output(programs, program, ['--version']);
  return text === undefined ? undefined : text.includes('nf_tables') ? 'nft' : 'legacy';
}

async function output(
  programs: Programs,
  program: string,
  args: readonly string[] = [],
): Promise<string | undefined> {
  try {
    return (await programs.run(program, args)).stdout;
  } catch (error) {
    if (error instanceof ProgramMissingError) return undefined;
    throw error;
  }
}

function isInstalled(programs: Programs, program: string): boolean {
  try {
    programs.find(program);
    return true;
  } catch {
    return false;
  }
}

/** Lines of iptables-save by table: policies as ":CHAIN POLICY" and rules as "-A CHAIN …". */
function tablesOf(text: string): Map<string, string[]> {
  const tables = new Map<string, string[]>();
  let lines: string[] = [];
  for (const line of text.split('\n')) {
    if (line.startsWith('*')) {
      lines = [];
      tables.set(line.slice(1), lines);
    } else if (line.startsWith(':') || line.startsWith('-A')) lines.push(line);
  }
  return tables;
}
