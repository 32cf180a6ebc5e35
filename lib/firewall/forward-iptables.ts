/**
 * What a firewall that drops forwarded packets must let through for containers, by iptables. Chains, rules and comments are
 * the reference firewall plugin's.
 */

import type { Family, Prefix } from '../ip.ts';
import type { Programs } from '../kernel/programs.ts';
import { families, forFamilies, IptablesError, IptablesMissingError, list, restore } from './iptables.ts';
import { commentWords, option, quote, type Rule } from './rules.ts';

const forwardChain = 'CNI-FORWARD';
const stageOne = 'CNI-ISOLATION-STAGE-1';
const stageTwo = 'CNI-ISOLATION-STAGE-2';

/** How containers of a bridge are kept apart: "open" not at all, "same-bridge" from other bridges, "isolated" from one another too. */
export type IngressPolicy = 'open' | 'same-bridge' | 'isolated';

/** Lets connections from the addresses through, and the answers to them. @param adminChain whose rules come first. */
export async function allowForwarding(
  programs: Programs,
  prefixes: readonly Prefix[],
  adminChain: string,
): Promise<void> {
  await forFamilies(familiesOf(prefixes), async (family) => {
    const own = prefixes.filter((prefix) => prefix.family === family);
    const shared = sharedRules(adminChain);
    const present = await list(programs, family, 'filter', forwardChain);
    const rules = own.flatMap(accepting).filter((rule) => !hasRule(present ?? [], rule));
    const append = rules.map((rule) => `-A ${rule}`);
    try {
      if (!present) throw new IptablesError(0, 'The chains are not set up yet');
      await restore(programs, family, 'filter', [...shared.map(({ rule }) => `-C ${rule}`), ...append]);
    } catch (error) {
      if (!(error instanceof IptablesError)) throw error;
      const all = (await list(programs, family, 'filter')) ?? [];
      await restore(programs, family, 'filter', [
        ...(await missingChains(programs, family, [forwardChain, adminChain])),
        ...missing(all, shared),
        ...append,
      ]);
    }
  });
}

/** Takes {@link allowForwarding} back; what is not there is no error. */
export async function removeForwardRules(programs: Programs, prefixes: readonly Prefix[]): Promise<void> {
  await forFamilies(familiesOf(prefixes), async (family) => {
    const own = prefixes.filter((prefix) => prefix.family === family);
    try {
      await restore(
        programs,
        family,
        'filter',
        own.flatMap(accepting).map((rule) => `-D ${rule}`),
      );
    } catch (error) {
      if (error instanceof IptablesMissingError) return; // Then there are no rules either.
      if (!(error instanceof IptablesError)) throw error;
      await forbidPresent(programs, family, own);
    }
  });
}

/** The same for rules that are not quite as {@link allowForwarding} made them. */
async function forbidPresent(programs: Programs, family: Family, prefixes: readonly Prefix[]): Promise<void> {
  const present = (await list(programs, family, 'filter', forwardChain)) ?? [];
  const sources = new Set(prefixes.map(({ address }) => `${address.toPrefix()}`));
  const ours = present.filter(
    (rule) =>
      option(rule, '-j') === 'ACCEPT' &&
      (sources.has(option(rule, '-s') ?? '') ||
        (sources.has(option(rule, '-d') ?? '') && rule.words.includes('RELATED,ESTABLISHED'))),
  );
  await restore(
    programs,
    family,
    'filter',
    ours.map((rule) => `-D ${forwardChain} ${rule.words.map(quote).join(' ')}`),
  );
}

/** @throws Error when packets of one of the addresses would not get through. */
export async function checkForwarding(
  programs: Programs,
  prefixes: readonly Prefix[],
  adminChain: string,
): Promise<void> {
  await forFamilies(familiesOf(prefixes), async (family) => {
    const present = (await list(programs, family, 'filter')) ?? [];
    for (const { rule } of sharedRules(adminChain))
      if (!hasRule(present, rule))
        throw new Error(`Table "filter" lacks the rule "${rule}". Add any container to set it up again`);
    for (const prefix of prefixes.filter((one) => one.family === family))
      for (const rule of accepting(prefix))
        if (!hasRule(present, rule))
          throw new Error(
            `Chain "${forwardChain}" lacks a rule for ${prefix.address}. Delete the container and add it again`,
          );
  });
}

/** Keeps the containers of a bridge from those of others, and with "isolated" from one another. The rules stay: they are the bridge's. */
export async function isolateBridge(
  programs: Programs,
  bridge: string,
  policy: IngressPolicy,
): Promise<void> {
  if (policy === 'open') return;
  for (const family of families) {
    const present = await listIfInstalled(programs, family);
    if (!present) continue;
    const name = quote(bridge);
    const shared = comment(`CNI firewall plugin rules (ingressPolicy: same-bridge|isolated)`);
    const own = comment(`CNI firewall plugin rules (ingressPolicy: ${policy})`);
    const wanted: SharedRule[] = [
      { rule: `FORWARD -j ${stageOne} ${shared}`, first: true },
      { rule: `${stageOne} -i ${name} ! -o ${name} -j ${stageTwo} ${own}`, first: true },
      { rule: `${stageOne} -j RETURN ${shared}` },
      { rule: `${stageTwo} -o ${name} -j DROP ${own}`, first: true },
      { rule: `${stageTwo} -j RETURN ${shared}` },
      ...(policy === 'isolated'
        ? [{ rule: `${stageOne} -i ${name} -o ${name} -j DROP ${own}`, first: true }]
        : []),
    ];
    await restore(programs, family, 'filter', [
      ...(await missingChains(programs, family, [stageOne, stageTwo])),
      ...missing(present, wanted),
    ]);
  }
}

/** @throws Error when a rule that keeps the bridge's containers apart is missing. */
export async function checkIsolation(
  programs: Programs,
  bridge: string,
  policy: IngressPolicy,
): Promise<void> {
  if (policy === 'open') return;
  for (const family of families) {
    const present = await listIfInstalled(programs, family);
    if (present && !isIsolated(present, bridge, policy))
      throw new Error(
        `Bridge "${bridge}" is not isolated for IPv${family}: rules are missing from "${stageOne}" or "${stageTwo}". Add any container to set them up again`,
      );
  }
}

/** Rules of the table "filter"; undefined where a node has no ip6tables, and so nothing to isolate of IPv6. */
async function listIfInstalled(programs: Programs, family: Family): Promise<Rule[] | undefined> {
  try {
    return (await list(programs, family, 'filter')) ?? [];
  } catch (error) {
    if (error instanceof IptablesMissingError && family === 6) return undefined;
    throw error;
  }
}

function isIsolated(present: readonly Rule[], bridge: string, policy: IngressPolicy): boolean {
  const leads = (chain: string, target: string, wanted: (rule: Rule) => boolean = () => true) =>
    present.some((rule) => rule.chain === chain && option(rule, '-j') === target && wanted(rule));
  const enters = (rule: Rule) => option(rule, '-i') === bridge;
  const leaves = (rule: Rule) => option(rule, '-o') === bridge;
  return (
    leads('FORWARD', stageOne) &&
    leads(stageOne, stageTwo, enters) &&
    leads(stageTwo, 'DROP', leaves) &&
    (policy !== 'isolated' || leads(stageOne, 'DROP', (rule) => enters(rule) && leaves(rule)))
  );
}

interface SharedRule {
  rule: string;
  /** It goes to the head of its chain. */
  first?: boolean;
}

function sharedRules(adminChain: string): SharedRule[] {
  return [
    { rule: `FORWARD ${comment('CNI firewall plugin rules')} -j ${forwardChain}`, first: true },
    {
      rule: `${forwardChain} ${comment('CNI firewall plugin admin overrides')} -j ${adminChain}`,
      first: true,
    },
  ];
}

function accepting({ address }: Prefix): string[] {
  const one = address.toPrefix();
  return [
    `${forwardChain} -d ${one} -m conntrack --ctstate RELATED,ESTABLISHED -j ACCEPT`,
    `${forwardChain} -s ${one} -j ACCEPT`,
  ];
}

function missing(present: readonly Rule[], wanted: readonly SharedRule[]): string[] {
  return wanted
    .filter(({ rule }) => !hasRule(present, rule))
    .map(({ rule, first }) => `${first ? '-I' : '-A'} ${rule}`);
}

async function missingChains(
  programs: Programs,
  family: Family,
  chains: readonly string[],
): Promise<string[]> {
  const commands = [];
  for (const chain of new Set(chains))
    if ((await list(programs, family, 'filter', chain)) === undefined) commands.push(`-N ${chain}`);
  return commands;
}

/** True when a rule stands in the listing, whatever the order of its parts. */
function hasRule(present: readonly Rule[], rule: string): boolean {
  const [chain, ...rest] = splitRule(rule);
  const wanted = rest.sort().join(' ');
  return present.some((one) => one.chain === chain && [...one.words].sort().join(' ') === wanted);
}

function splitRule(rule: string): string[] {
  return Array.from(rule.matchAll(/"((?:[^"\\]|\\.)*)"|(\S+)/g), ([, quoted, plain]) => quoted ?? plain!);
}

function familiesOf(prefixes: readonly Prefix[]): Family[] {
  return families.filter((family) => prefixes.some((prefix) => prefix.family === family));
}

function comment(text: string): string {
  return commentWords(text).map(quote).join(' ');
}
