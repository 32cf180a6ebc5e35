/**
 * Letting forwarded packets through by iptables. Chains, rules and comments are the reference firewall
 * plugin's, so that either suite checks and deletes what the other added.
 */

import type { Address, Family } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import { listRules } from '../netlink/nftables/rules.ts';
import { areConfirmed, rememberConfirmed } from './confirmed-rules.ts';
import { ensureRules, missingRules, undoChange } from './ensure.ts';
import { type ForwardBackend, type ForwardRequest, familiesOf } from './forward.ts';
import { forFamilies, forInstalledFamilies, programOf, requireUsable, tryCommit } from './iptables.ts';
import { ensureIsolation, isIsolated, isolationRules, stageOne, stageTwo } from './isolation-iptables.ts';
import { mentions, nftTableOf, withNftables } from './nftables.ts';
import { removeRules } from './removal.ts';
import { commentWords, option, type Rule, renderRule, type SharedRule, targetOf } from './rules.ts';
import { isNftVariant } from './xtables-lock.ts';

const table = 'filter';
const forwardChain = 'CNI-FORWARD';

/** Chains that iptables or the firewall plugin uses for its own purposes. */
export const reservedChains: readonly string[] = [
  'INPUT',
  'FORWARD',
  'OUTPUT',
  forwardChain,
  stageOne,
  stageTwo,
];

/** @param adminChain chain with rules of the operator, which come first. */
export function iptablesForward(programs: Programs, adminChain: string): ForwardBackend {
  const shared: readonly SharedRule[] = [
    {
      chain: 'FORWARD',
      words: [...commentWords('CNI firewall plugin rules'), '-j', forwardChain],
      first: true,
    },
    {
      chain: forwardChain,
      words: [...commentWords('CNI firewall plugin admin overrides'), '-j', adminChain],
      first: true,
    },
  ];
  const rulesOf = (request: ForwardRequest, family: Family) => ({
    shared: request.addresses.length > 0 ? shared : [],
    isolation: request.isolation ? isolationRules(request.isolation) : [],
    own: accepting(request.addresses, family),
  });

  return {
    async allow(request, isNew, undo) {
      await forFamilies(request.families, async (family) => {
        const { isolation, own, ...rules } = rulesOf(request, family);
        const remove = () => undoChange(programs, family, table, { added: own, removed: [] });
        if (isNew) {
          // Nobody has the addresses, so that their rules need not be looked for; the shared rules exist
          // except the first time.
          const asked = [rules.shared, isolation].filter(
            (list) => !areConfirmed(programs, family, table, list),
          );
          const checks = asked.flat().map((rule) => renderRule('-C', rule));
          const additions = own.map((rule) => renderRule('-A', rule));
          if (await tryCommit(programs, family, table, [...checks, ...additions])) {
            undo('take back the rules that let traffic through', remove);
            for (const list of asked) rememberConfirmed(programs, family, table, list);
            return;
          }
        }
        if (own.length > 0) {
          const chains = [forwardChain, adminChain];
          const change = await ensureRules(programs, family, table, { chains, shared, own: { rules: own } });
          undo('take back the rules that let traffic through', () =>
            undoChange(programs, family, table, change),
          );
        }
        if (request.isolation) await ensureIsolation(programs, family, request.isolation);
      });
    },

    async missing(request) {
      const missing: string[] = [];
      await forFamilies(request.families, async (family) => {
        const { shared, own } = rulesOf(request, family);
        const set = { shared, own: { rules: own } };
        missing.push(...(await missingRules(programs, family, table, set)));
        if (request.isolation && !(await isIsolated(programs, family, request.isolation)))
          missing.push(`isolation of bridge "${request.isolation.bridge}" for IPv${family}`);
      });
      return missing;
    },

    async remove(addresses) {
      // The forms in which iptables lists them.
      const texts = new Set(addresses.flatMap((address) => [`${address}`, `${address.toPrefix()}`]));
      await forInstalledFamilies(async (family) => {
        const known = accepting(addresses, family);
        const own = (rules: readonly Rule[]) => rules.filter((rule) => isAccepting(rule, texts));
        await removeRules(programs, family, table, { from: forwardChain, known, own });
        // The reference plugin leaves rules where DEL is told no addresses, and ADD does not look for them.
        if (mayHaveMore(programs, family, addresses))
          await removeRules(programs, family, table, { from: forwardChain, known: [], own });
      }, familiesOf(addresses));
    },

    async probe() {
      await requireUsable(programs, 4, table);
    },
  };
}

/**
 * Whether rules for addresses may still be there. In nf_tables, finding out costs little; elsewhere, a closer
 * look is needed.
 */
function mayHaveMore(programs: Programs, family: Family, addresses: readonly Address[]): boolean {
  if (!isNftVariant(programs, programOf(family, '-restore'))) return true;
  const rules = withNftables((socket) => listRules(socket, nftTableOf(family, table), forwardChain));
  return rules.some((rule) => addresses.some((address) => mentions(rule, address)));
}

/** The rules that let connections from the addresses through, and the answers to them. */
function accepting(addresses: readonly Address[], family: Family): Rule[] {
  return addresses
    .filter((address) => address.family === family)
    .flatMap((address) => {
      const one = `${address.toPrefix()}`;
      const answers = ['-m', 'conntrack', '--ctstate', 'RELATED,ESTABLISHED'];
      return [
        { chain: forwardChain, words: ['-d', one, ...answers, '-j', 'ACCEPT'] },
        { chain: forwardChain, words: ['-s', one, '-j', 'ACCEPT'] },
      ];
    });
}

/**
 * Whether a rule does the same as one of {@link accepting}, even if it is not quite alike.
 * @param addresses with and without prefix length.
 */
function isAccepting(rule: Rule, addresses: ReadonlySet<string>): boolean {
  const isOurs = (prefix: string | undefined) => prefix !== undefined && addresses.has(prefix);
  if (targetOf(rule) !== 'ACCEPT') return false;
  return isOurs(option(rule, '-s')) || (isOurs(option(rule, '-d')) && rule.words.includes('--ctstate'));
}
