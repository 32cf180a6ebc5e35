/**
 * Masquerading by iptables: a chain for each container on a network, which the container's packets are sent to from
 * POSTROUTING unless they stay within the subnet.
 */

import type { AttachmentId } from '../attachment.ts';
import type { Family, Prefix } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import {
  comment,
  forFamilies,
  forInstalledFamilies,
  IptablesError,
  list,
  option,
  type Rule,
  requireInstalled,
  restore,
} from './iptables.ts';
import type { MasqueradeBackend } from './masquerade.ts';
import { masqueradeChain, masqueradeComment, readComment } from './names.ts';

const multicast = { 4: '224.0.0.0/4', 6: 'ff00::/8' } as const;

export const iptablesMasquerade = (programs: Programs): MasqueradeBackend => ({
  async add(attachment, prefixes) {
    await forFamilies(familiesOf(prefixes), async (family) => {
      const own = prefixes.filter((prefix) => prefix.family === family);
      const chain = masqueradeChain(attachment);
      try {
        // A new container has no chain, so it need not be looked for: -N fails when there is one, and nothing is done.
        await restore(programs, family, 'nat', [
          `-N ${chain}`,
          ...chainRules(attachment, own),
          ...own.map((prefix) => jump(attachment, prefix)),
        ]);
      } catch (error) {
        if (!(error instanceof IptablesError)) throw error;
        const present = await list(programs, family, 'nat');
        const rules = present?.filter((rule) => rule.chain === chain) ?? [];
        const jumps = jumpsTo(present ?? [], chain);
        if (rules.length === 0 && jumps.length === 0) throw error;
        await restore(programs, family, 'nat', [
          ...chainRules(attachment, own).filter((line) => !rules.some((rule) => sameRule(rule, line))),
          ...own
            .filter(({ address }) => !jumps.some((rule) => sourceOf(rule) === `${address.toPrefix()}`))
            .map((prefix) => jump(attachment, prefix)),
        ]);
      }
    });
  },

  async del(attachment, hints) {
    await forInstalledFamilies(async (family) => {
      const own = hints.filter((prefix) => prefix.family === family);
      // Who knows addresses knows all of them: a container without one of this family has no rules of it.
      if (hints.length > 0 && own.length === 0) return;
      if (own.length > 0 && (await deleteKnown(programs, family, attachment, own))) return;
      const present = (await list(programs, family, 'nat')) ?? [];
      const chain = masqueradeChain(attachment);
      const known = own.map(({ address }) => `${address.toPrefix()}`);
      const jumps = jumpsTo(present, chain);
      // Another interface of the container on this network shares the chain.
      const ours = known.length > 0 ? jumps.filter((rule) => known.includes(sourceOf(rule) ?? '')) : jumps;
      await restore(programs, family, 'nat', [
        ...ours.map((rule) => `-D POSTROUTING ${rule.spec}`),
        ...(ours.length === jumps.length && hasChain(present, chain, jumps)
          ? [`-F ${chain}`, `-X ${chain}`]
          : []),
      ]);
    });
  },

  async check(attachment, prefixes) {
    await forFamilies(familiesOf(prefixes), async (family) => {
      const chain = masqueradeChain(attachment);
      const [present = [], rules = []] = await Promise.all([
        list(programs, family, 'nat', 'POSTROUTING'),
        list(programs, family, 'nat', chain),
      ]);
      for (const { address } of prefixes.filter((prefix) => prefix.family === family))
        if (!jumpsTo(present, chain).some((rule) => sourceOf(rule) === `${address.toPrefix()}`))
          throw new Error(
            `Packets of ${address} are not masqueraded: POSTROUTING has no rule that sends them to chain "${chain}"`,
          );
      if (!rules.some((rule) => option(rule, '-j') === 'MASQUERADE'))
        throw new Error(`Chain "${chain}" has no MASQUERADE rule. Delete the container and add it again`);
    });
  },

  async probe() {
    await requireInstalled(programs, 4);
  },

  async gc(network, valid) {
    const ids = new Set(valid.map(({ containerId }) => containerId));
    await forInstalledFamilies(async (family) => {
      const commands: string[] = [];
      const chains = new Set<string>();
      for (const rule of (await list(programs, family, 'nat')) ?? []) {
        const owner = readComment(option(rule, '--comment') ?? '');
        if (!owner || owner.network !== network || ids.has(owner.containerId)) continue;
        const chain = masqueradeChain(owner);
        if (rule.chain === 'POSTROUTING' && option(rule, '-j') === chain)
          commands.push(`-D POSTROUTING ${rule.spec}`);
        if (rule.chain === chain || option(rule, '-j') === chain) chains.add(chain);
      }
      await restore(programs, family, 'nat', [
        ...commands,
        ...[...chains].flatMap((chain) => [`-F ${chain}`, `-X ${chain}`]),
      ]);
    });
  },
});

/** Deletes the rules as ADD made them. @returns false when they are not quite like that, and nothing was done. */
async function deleteKnown(
  programs: Programs,
  family: Family,
  attachment: AttachmentId,
  prefixes: readonly Prefix[],
): Promise<boolean> {
  const chain = masqueradeChain(attachment);
  try {
    await restore(programs, family, 'nat', [
      ...prefixes.map((prefix) => jump(attachment, prefix).replace(/^-A/, '-D')),
      `-F ${chain}`,
      `-X ${chain}`,
    ]);
    return true;
  } catch (error) {
    if (error instanceof IptablesError) return false;
    throw error;
  }
}

function chainRules(attachment: AttachmentId, prefixes: readonly Prefix[]): string[] {
  const chain = masqueradeChain(attachment);
  const mark = comment(masqueradeComment(attachment));
  const subnets = new Set(prefixes.map((prefix) => `${prefix.network}`));
  return [
    ...[...subnets].map((subnet) => `-A ${chain} -d ${subnet} -j ACCEPT ${mark}`),
    `-A ${chain} ! -d ${multicast[prefixes[0]!.family]} -j MASQUERADE ${mark}`,
  ];
}

function jump(attachment: AttachmentId, { address }: Prefix): string {
  return `-A POSTROUTING -s ${address.toPrefix()} -j ${masqueradeChain(attachment)} ${comment(masqueradeComment(attachment))}`;
}

function jumpsTo(rules: readonly Rule[], chain: string): Rule[] {
  return rules.filter((rule) => rule.chain === 'POSTROUTING' && option(rule, '-j') === chain);
}

/** Source of a rule, always with a prefix length. */
function sourceOf(rule: Rule): string | undefined {
  const source = option(rule, '-s');
  return source && (source.includes('/') ? source : `${source}/${source.includes(':') ? 128 : 32}`);
}

/** iptables-save names a chain even when it is empty, but rules are all that was listed; an empty chain has no rules. */
function hasChain(rules: readonly Rule[], chain: string, jumps: readonly Rule[]): boolean {
  return jumps.length > 0 || rules.some((rule) => rule.chain === chain);
}

function sameRule(rule: Rule, line: string): boolean {
  const target = /-j (\S+)/.exec(line)?.[1];
  const destination = /-d (\S+)/.exec(line)?.[1];
  return option(rule, '-j') === target && option(rule, '-d') === destination;
}

function familiesOf(prefixes: readonly Prefix[]): Family[] {
  return [...new Set(prefixes.map(({ family }) => family))];
}
