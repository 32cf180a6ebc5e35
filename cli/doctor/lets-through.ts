/** Whether a firewall lets through what a pod sends: walks its rules as the kernel does. */

import { Address, Prefix } from '../../lib/ip.ts';

/** The sender of packets. */
export interface Sender {
  readonly ip: string;
  /** Host interface by which its packets come in, if known. */
  readonly link: string | undefined;
}

/** Chains by name. */
export type Chains = ReadonlyMap<string, readonly FirewallRule[]>;

/**
 * Whether a match holds for what a sender sends: for all of it, for none of it, or ("maybe") for some of it
 * or unknown. An accept counts where it may hold, and a drop only where it always does.
 */
export type Holds = 'always' | 'maybe' | 'never';

/** A rule, as far as it is about what a pod sends. */
export interface FirewallRule {
  /** Each must hold. */
  readonly sources: readonly Match[];
  readonly inputs: readonly Match[];
  readonly outputs: readonly Match[];
  /** Whether its other matches hold. */
  readonly others: Holds;
  readonly verdict: 'accept' | 'drop' | 'return' | 'jump' | 'goto' | undefined;
  /** Chain of "jump" and "goto". */
  readonly target: string;
}

/** What an address or an interface name is compared with. */
export interface Match {
  readonly values: readonly string[];
  readonly isNegated: boolean;
}

/** "drop-as-rest": dropped by a rule for all packets, since no earlier rule decided. */
export type Outcome = 'accept' | 'drop' | 'drop-as-rest';

/**
 * Whether new connections of a sender are accepted, at least to some destinations, or dropped to all.
 * Rules for certain ports, protocols or destinations do not count.
 * @returns undefined where the policy of the base chain decides, or it cannot be told.
 */
export function verdictOn(chains: Chains, base: string, sender: Sender): Outcome | undefined {
  return walk(chains, base, sender, new Map());
}

/** Whether all matches of a rule hold together. */
export function together(holds: readonly Holds[]): Holds {
  return (['never', 'maybe'] as const).find((one) => holds.includes(one)) ?? 'always';
}

/** @param seen outcomes of the chains walked so far; undefined for those that are still being walked. */
function walk(
  chains: Chains,
  name: string,
  sender: Sender,
  seen: Map<string, Outcome | undefined>,
): Outcome | undefined {
  if (seen.has(name)) return seen.get(name);
  seen.set(name, undefined);
  const outcome = outcomeOf(chains.get(name) ?? [], sender, (target) => walk(chains, target, sender, seen));
  seen.set(name, outcome);
  return outcome;
}

function outcomeOf(
  rules: readonly FirewallRule[],
  sender: Sender,
  follow: (chain: string) => Outcome | undefined,
): Outcome | undefined {
  /** Whether some packets may have left the chain, so that a later drop does not concern all of them. */
  let mayHaveLeft = false;
  for (const rule of rules) {
    const holds = holdsFor(rule, sender);
    if (holds === 'never') continue;
    const outcome = reached(rule, follow);
    if (outcome === 'accept') return outcome;
    const leaves = rule.verdict === 'return' || (rule.verdict === 'goto' && outcome === undefined);
    if (holds === 'maybe') mayHaveLeft ||= leaves;
    else if (leaves) return undefined;
    else if (outcome !== undefined) return mayHaveLeft ? undefined : outcome;
  }
  return undefined;
}

/** The outcome of a rule where it holds; undefined where the walk goes on. */
function reached(
  { sources, inputs, outputs, verdict, target }: FirewallRule,
  follow: (chain: string) => Outcome | undefined,
): Outcome | undefined {
  const isJump = verdict === 'jump' || verdict === 'goto';
  const outcome = isJump ? follow(target) : verdict === 'drop' ? 'drop-as-rest' : verdict;
  if (outcome === 'return') return undefined;
  const isForAll = sources.length + inputs.length + outputs.length === 0;
  return outcome === 'drop-as-rest' && !isForAll ? 'drop' : outcome;
}

function holdsFor({ sources, inputs, outputs, others }: FirewallRule, { ip, link }: Sender): Holds {
  return together([
    ...sources.map((match) => matches(match, (value) => covers(value, ip))),
    ...inputs.map((match) => matches(match, (value) => isNameOf(value, link))),
    // Packets that would leave by the interface they came in by never leave the bridge.
    ...outputs.map((match) => matches(match, (value) => (value === link ? 'never' : 'maybe'))),
    others,
  ]);
}

/** Whether one of the values of a match holds or, where it is negated, none. */
function matches({ values, isNegated }: Match, test: (value: string) => Holds): Holds {
  const each = values.map(test);
  const any = (['always', 'maybe'] as const).find((one) => each.includes(one)) ?? 'never';
  if (any === 'maybe') return any;
  return (any === 'always') === isNegated ? 'never' : 'always';
}

/** The elements of a set that a rule refers to by name are not known here. */
function covers(text: string, ip: string): Holds {
  if (text.startsWith('@')) return 'maybe';
  const address = Address.parse(ip);
  const [first, last] = text.split('-').map((part) => Address.tryParse(part));
  const isCovered =
    first && last
      ? first.compare(address) <= 0 && address.compare(last) <= 0
      : (first?.equals(address) ?? false) || (Prefix.tryParse(text)?.contains(address) ?? false);
  return isCovered ? 'always' : 'never';
}

/** A name that ends in "+" (iptables) or "*" (nft) stands for all names with that beginning. */
function isNameOf(pattern: string, link: string | undefined): Holds {
  if (pattern.startsWith('@')) return 'maybe';
  const isBeginning = /[+*]$/.test(pattern);
  return (isBeginning ? link?.startsWith(pattern.slice(0, -1)) : pattern === link) ? 'always' : 'never';
}
