/**
 * Masquerading by iptables: a chain for each container on a network, which the container's packets are sent
 * to from POSTROUTING, and which masquerades them unless they stay within the subnet.
 */

import type { AttachmentId } from '../attachment.ts';
import { type Family, families, type Prefix } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import { collectEmptyChains } from './empty-chains.ts';
import { ensureRules, missingRules, type RuleSet, undoChange } from './ensure.ts';
import { forFamilies, forInstalledFamilies, requireUsable } from './iptables.ts';
import type { MasqueradeBackend } from './masquerade-backend.ts';
import { masqueradeChain, masqueradeComment, readComment } from './names.ts';
import { removeChains, removeRules } from './removal.ts';
import { commentWords, isSameRule, option, prefixWords, type Rule, targetOf } from './rules.ts';

const table = 'nat';
const entryChain = 'POSTROUTING';
const multicast = { 4: '224.0.0.0/4', 6: 'ff00::/8' } as const;

export const iptablesMasquerade = (programs: Programs): MasqueradeBackend => ({
  async add(attachment, prefixes, undo) {
    await forFamilies(familiesOf(prefixes), async (family) => {
      const change = await ensureRules(programs, family, table, ruleSetOf(family, attachment, prefixes));
      undo('take back the masquerading rules', () => undoChange(programs, family, table, change));
    });
  },

  async del(attachment, neighbours, hints) {
    const chain = masqueradeChain(attachment);
    // The container's other interfaces on this network share the chain.
    const isKnown = hints.length > 0;
    const addresses = isKnown ? hints.map(({ address }) => address) : neighbours();
    const sources = new Set(addresses.map((address) => `${address.toPrefix()}`));
    const isFromThese = (rule: Rule) => sources.has(option(rule, '-s') ?? '');
    const isNotFromNeighbours = (rule: Rule) => !isFromThese(rule);
    const isOwn = isKnown ? isFromThese : isNotFromNeighbours;
    await forInstalledFamilies(
      async (family) => {
        await removeRules(programs, family, table, {
          chain,
          from: entryChain,
          known: hints.filter((prefix) => prefix.family === family).map((prefix) => jump(attachment, prefix)),
          own: (rules) => rules.filter((rule) => targetOf(rule) === chain && isOwn(rule)),
        });
      },
      // A family that the hints do not name has no rules.
      isKnown ? familiesOf(hints) : families,
    );
  },

  async missing(attachment, prefixes) {
    const missing: string[] = [];
    await forFamilies(familiesOf(prefixes), async (family) => {
      const set = ruleSetOf(family, attachment, prefixes);
      missing.push(...(await missingRules(programs, family, table, set)));
    });
    return missing;
  },

  async probe() {
    await requireUsable(programs, 4, table);
  },

  async gc(network, valid) {
    const keep = new Set(valid.map(masqueradeChain));
    await forInstalledFamilies(async (family) => {
      await removeChains(programs, family, table, entryChain, (chain, comment) => {
        const owner = readComment(comment);
        return owner?.network === network && chain === masqueradeChain(owner) && !keep.has(chain);
      });
      await collectEmptyChains(
        programs,
        family,
        table,
        (chain) => /^CNI-[0-9a-f]{24}$/.test(chain) && !keep.has(chain),
      );
    });
  },
});

/** Everything that a family's addresses need. */
function ruleSetOf(family: Family, attachment: AttachmentId, prefixes: readonly Prefix[]): RuleSet {
  const own = prefixes.filter((prefix) => prefix.family === family);
  const rules = [...chainRules(attachment, own), ...own.map((prefix) => jump(attachment, prefix))];
  return {
    chains: [],
    shared: [],
    own: {
      chain: masqueradeChain(attachment),
      rules,
      // Rules that exist already are added again: in the chain, what is masqueraded must come after what is
      // not.
      outdated: (found) => found.filter((one) => rules.some((rule) => isSameRule(one, rule))),
    },
  };
}

function chainRules(attachment: AttachmentId, prefixes: readonly Prefix[]): Rule[] {
  const chain = masqueradeChain(attachment);
  const mark = commentWords(masqueradeComment(attachment));
  const subnets = new Map(prefixes.map((prefix) => [`${prefix.network}`, prefix]));
  return [
    ...[...subnets.values()].map((subnet) => ({
      chain,
      words: [...prefixWords('-d', subnet), ...mark, '-j', 'ACCEPT'],
    })),
    { chain, words: ['!', '-d', multicast[prefixes[0]!.family], ...mark, '-j', 'MASQUERADE'] },
  ];
}

function jump(attachment: AttachmentId, { address }: Prefix): Rule {
  return {
    chain: entryChain,
    words: [
      ...prefixWords('-s', address.toPrefix()),
      ...commentWords(masqueradeComment(attachment)),
      '-j',
      masqueradeChain(attachment),
    ],
  };
}

function familiesOf(prefixes: readonly Prefix[]): Family[] {
  return families.filter((family) => prefixes.some((prefix) => prefix.family === family));
}
