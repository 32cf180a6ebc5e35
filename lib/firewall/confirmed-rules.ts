/**
 * Shared rules that iptables has confirmed to exist. Asking it again for each attachment costs more the more
 * attachments there are: it reads every rule of the chain that a rule is in, and of the chain it leads to. So
 * what it has confirmed is recorded as the kernel has it, by handle and content, and later compared with the
 * kernel. The files are hints: when they say nothing, or something else, iptables is asked.
 */

import type { Family } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import { getRawRules, listRawRules, type RawRule } from '../netlink/nftables/xtables.ts';
import { readStateFile, removeUnfinished, writeStateFile } from '../state-file.ts';
import { programOf } from './iptables.ts';
import { nftTableOf, withNftables } from './nftables.ts';
import { type Rule, renderRule, targetOf } from './rules.ts';
import { sha512 } from './sha512.ts';
import { isNftVariant } from './xtables-lock.ts';

const directory = '/run/cni/iptables';

/** True when rules that {@link rememberConfirmed} was told of still exist. */
export function areConfirmed(
  programs: Programs,
  family: Family,
  table: string,
  rules: readonly Rule[],
): boolean {
  if (rules.length === 0) return true;
  if (!isNftVariant(programs, programOf(family, '-restore'))) return false;
  try {
    const seen = parse(readStateFile(fileOf(family, table, rules)) ?? '');
    if (seen.length !== rules.length) return false;
    const wanted = rules.map(({ chain }, i) => ({ chain, handle: seen[i]!.handle }));
    const found = withNftables((socket) => getRawRules(socket, nftTableOf(family, table), wanted));
    return found.every((rule, i) => rule !== undefined && digestOf(rule) === seen[i]!.digest);
  } catch {
    return false;
  }
}

/** Records which of the kernel's rules are those that iptables has just confirmed. */
export function rememberConfirmed(
  programs: Programs,
  family: Family,
  table: string,
  rules: readonly Rule[],
): void {
  if (rules.length === 0 || !isNftVariant(programs, programOf(family, '-restore'))) return;
  try {
    const seen = rules.map((rule) => {
      const all = withNftables((socket) => listRawRules(socket, nftTableOf(family, table), rule.chain));
      const alike = all.filter(({ target }) => target === targetOf(rule));
      const found = alike.length > 0 ? alike : all;
      // With several candidates, nothing tells which of them is the rule.
      return found.length === 1 ? { handle: `${found[0]!.handle}`, digest: digestOf(found[0]!) } : undefined;
    });
    if (seen.every((one) => one !== undefined))
      writeStateFile(fileOf(family, table, rules), JSON.stringify(seen));
  } catch {
    // Without the hint, iptables is asked again next time.
  }
}

/** Removes what {@link rememberConfirmed} has left unfinished because its process was killed. */
export function removeUnfinishedHints(): void {
  removeUnfinished(directory);
}

/** @throws Error when it is not what {@link rememberConfirmed} writes. */
function parse(text: string): { handle: bigint; digest: string }[] {
  return (JSON.parse(text) as { handle: string; digest: string }[]).map(({ handle, digest }) => ({
    handle: BigInt(handle),
    digest: String(digest),
  }));
}

function digestOf({ content }: RawRule): string {
  return sha512(content);
}

function fileOf(family: Family, table: string, rules: readonly Rule[]): string {
  const text = [family, table, ...rules.map((rule) => renderRule('-C', rule))].join('\n');
  return `${directory}/${sha512(text).slice(0, 32)}.json`;
}
