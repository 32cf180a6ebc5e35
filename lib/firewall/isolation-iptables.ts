/**
 * Keeping bridges, and the containers of a bridge, apart by iptables, in the chains and with the rules and
 * comments of the reference firewall plugin.
 */

import type { Family } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import { changeRules } from './ensure.ts';
import type { Isolation } from './forward.ts';
import { listOrAsk } from './listing.ts';
import { commentWords, isSameRule, option, type Rule, renderRule, type SharedRule } from './rules.ts';

const table = 'filter';
export const stageOne = 'CNI-ISOLATION-STAGE-1';
export const stageTwo = 'CNI-ISOLATION-STAGE-2';
const commentStart = 'CNI firewall plugin rules (ingressPolicy: ';
/** Comment on rules that bridges of both policies share. */
const sharedComment = `${commentStart}same-bridge|isolated)`;

/** The rules that isolate a bridge, as release 1.9 of the reference plugin writes them. */
export function isolationRules({ bridge, policy }: Isolation): SharedRule[] {
  const [shared, own] = [commentWords(sharedComment), commentWords(`${commentStart}${policy})`)];
  return [
    { chain: 'FORWARD', words: ['-j', stageOne, ...shared], first: true },
    { chain: stageOne, words: ['-i', bridge, '!', '-o', bridge, '-j', stageTwo, ...own], first: true },
    ...(policy === 'isolated'
      ? [{ chain: stageOne, words: ['-i', bridge, '-o', bridge, '-j', 'DROP', ...own], first: true }]
      : []),
    { chain: stageOne, words: ['-j', 'RETURN', ...shared] },
    { chain: stageTwo, words: ['-o', bridge, '-j', 'DROP', ...shared], first: true },
    { chain: stageTwo, words: ['-j', 'RETURN', ...shared] },
  ];
}

/**
 * Makes sure that the rules exist, each once, in place of those that other releases wrote with other
 * comments.
 */
export async function ensureIsolation(
  programs: Programs,
  family: Family,
  isolation: Isolation,
): Promise<void> {
  await changeRules(programs, family, table, async () => {
    const present = await listStages(programs, family, isolation);
    const commands = isolationRules(isolation).flatMap((rule) => {
      const others = alike(present, rule).filter((one) => !isSameRule(one, rule));
      const isThere = present.get(rule.chain)?.some((one) => isSameRule(one, rule));
      return [
        ...(isThere ? [] : [renderRule(rule.first ? '-I' : '-A', rule)]),
        ...others.map((other) => renderRule('-D', other)),
      ];
    });
    const chains = [stageOne, stageTwo].filter((chain) => !present.get(chain));
    return { commands: [...chains.map((chain) => `-N ${chain}`), ...commands], outcome: undefined };
  });
}

/** Whether the rules are there, whichever release wrote them. */
export async function isIsolated(programs: Programs, family: Family, isolation: Isolation): Promise<boolean> {
  const present = await listStages(programs, family, isolation);
  return isolationRules(isolation).every(
    (rule) =>
      alike(present, rule).length > 0 || present.get(rule.chain)?.some((one) => isSameRule(one, rule)),
  );
}

async function listStages(
  programs: Programs,
  family: Family,
  isolation: Isolation,
): Promise<ReadonlyMap<string, Rule[] | undefined>> {
  const chains = ['FORWARD', stageOne, stageTwo];
  const wanted = isolationRules(isolation);
  return new Map(
    await Promise.all(
      chains.map(async (chain) => [chain, await listOrAsk(programs, family, table, chain, wanted)] as const),
    ),
  );
}

/**
 * Existing rules like a wanted one, with the comment of another release of either suite: releases differ in
 * the comments on rules that all bridges share, and on the one that drops.
 */
function alike(present: ReadonlyMap<string, Rule[] | undefined>, wanted: Rule): Rule[] {
  if (option(wanted, '--comment') !== sharedComment) return [];
  return (present.get(wanted.chain) ?? []).filter((rule) => {
    const comment = option(rule, '--comment') ?? '';
    return comment.startsWith(commentStart) && isSameRule(withComment(rule, sharedComment), wanted);
  });
}

function withComment(rule: Rule, comment: string): Rule {
  const old = option(rule, '--comment');
  return { ...rule, words: rule.words.map((word) => (word === old ? comment : word)) };
}
