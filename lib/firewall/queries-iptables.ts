/** Letting queries through by iptables. See queries.ts. */

import { type Family, families } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import { ensureRules } from './ensure.ts';
import { forFamilies, forInstalledFamilies, tryCommit } from './iptables.ts';
import type { Queries } from './queries-backend.ts';
import { removeRules } from './removal.ts';
import { commentWords, option, prefixWords, type Rule, renderRule, type SharedRule } from './rules.ts';

const table = 'filter';
const chain = 'CNI-DNSNAME';

const shared: readonly SharedRule[] = [
  { chain: 'INPUT', words: [...commentWords('CNI dnsname plugin rules'), '-j', chain], first: true },
];

/** See allowQueries in queries.ts. */
export async function allowByIptables(
  programs: Programs,
  queries: readonly Queries[],
  onChange: () => void,
): Promise<void> {
  await forFamilies(families, async (family) => {
    const rules = rulesOf(queries, family);
    if (rules.length === 0 || (await areThere(programs, family, rules))) return;
    await ensureRules(programs, family, table, { chains: [chain], shared, own: { rules } });
    onChange();
  });
}

/** Whether every query is let through. */
export async function isAllowedByIptables(programs: Programs, queries: readonly Queries[]): Promise<boolean> {
  const outcomes = await Promise.all(
    families.map(async (family) => {
      const rules = rulesOf(queries, family);
      return rules.length === 0 || areThere(programs, family, rules);
    }),
  );
  return outcomes.every(Boolean);
}

/** Removes the rules of a network. */
export async function withdrawFromIptables(programs: Programs, network: string): Promise<void> {
  await forInstalledFamilies(async (family) => {
    await removeRules(programs, family, table, {
      from: chain,
      known: [],
      own: (rules) => rules.filter((rule) => option(rule, '--comment') === commentOf(network)),
    });
  });
}

function areThere(programs: Programs, family: Family, rules: readonly Rule[]): Promise<boolean> {
  const commands = [...shared, ...rules].map((rule) => renderRule('-C', rule));
  return tryCommit(programs, family, table, commands);
}

function rulesOf(queries: readonly Queries[], family: Family): Rule[] {
  return queries
    .filter(({ to }) => to.family === family)
    .flatMap(({ network, from, to }) =>
      ['udp', 'tcp'].map((protocol) => ({
        chain,
        words: [
          ...[...prefixWords('-s', from), ...prefixWords('-d', to.toPrefix()), '-p', protocol],
          ...commentWords(commentOf(network)),
          ...['-m', protocol, '--dport', '53', '-j', 'ACCEPT'],
        ],
      })),
    );
}

function commentOf(network: string): string {
  return `name: "${network}"`.slice(0, 255);
}
