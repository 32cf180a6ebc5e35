/** Whether a firewall lets through what a pod sends: a walk along its rules, as the kernel goes. */

import { Address, Prefix } from '../../lib/ip.ts';

/** Who sends. */
export interface Sender {
  readonly ip: string;
  /** Interface of the host that its packets come in by, where that is known. */
  readonly link: string | undefined;
}

/** Chains by name. */
export type Chains = ReadonlyMap<string, readonly FirewallRule[]>;

/** A rule, as far as it is about what a pod sends. */
export interface FirewallRule {
  /** Each must hold. */
  readonly sources: readonly Match[];
  readonly inputs: readonly Match[];
  readonly outputs: readonly Match[];
  /** How much of what those let in it is about, by its other matches. What is not understood is "unknown". */
  readonly extent: 'all' | 'some' | 'none' | 'unknown';
  readonly verdict: 'accept' | 'drop' | 'return' | 'jump' | 'goto' | undefined;
  /** Chain of "jump" and "goto". */
  readonly target: string;
}

/** What an address or a name of an interface is held against. */
export interface Match {
  readonly values: readonly string[];
  readonly isNegated: boolean;
}

/**
 * Whether new connections of a sender are accepted, to somewhere at least, or dropped, wherever they go.
 * Rules for certain ports, protocols or destinations do not count.
 * @returns undefined where the policy of the base chain decides.
 */
export function verdictOn(chains: Chains, base: string, sender: Sender): 'accept' | 'drop' | undefined {
  return walk(chains, base, sender, new Map());
}

/** @param seen what is known of chains; those that are being walked lead nowhere. */
function walk(
  chains: Chains,
  name: string,
  sender: Sender,
  seen: Map<string, 'accept' | 'drop' | undefined>,
): 'accept' | 'drop' | undefined {
  if (seen.has(name)) return seen.get(name);
  seen.set(name, undefined);
  const outcome = outcomeOf(chains.get(name) ?? [], sender, (target) => walk(chains, target, sender, seen));
  seen.set(name, outcome);
  return outcome;
}

function outcomeOf(
  rules: readonly FirewallRule[],
  sender: Sender,
  follow: (chain: string) => 'accept' | 'drop' | undefined,
): 'accept' | 'drop' | undefined {
  for (const rule of rules) {
    const extent = extentFor(rule, sender);
    if (extent === 'none') continue;
    const isJump = rule.verdict === 'jump' || rule.verdict === 'goto';
    const verdict = isJump ? follow(rule.target) : rule.verdict;
    if (verdict === 'accept') return 'accept';
    if (extent !== 'all') continue;
    if (verdict === 'drop') return 'drop';
    if (verdict === 'return' || rule.verdict === 'goto') return undefined;
  }
  return undefined;
}

/** How much of what a sender sends a rule is about. */
function extentFor(
  { sources, inputs, outputs, extent }: FirewallRule,
  { ip, link }: Sender,
): 'all' | 'some' | 'none' {
  const holds = ({ values, isNegated }: Match, test: (value: string) => boolean) =>
    values.some(test) !== isNegated;
  if (!sources.every((match) => holds(match, (value) => covers(value, ip)))) return 'none';
  if (!inputs.every((match) => holds(match, (value) => link !== undefined && isNameOf(value, link))))
    return 'none';
  // What goes back where it came from does not leave the bridge.
  if (outputs.some(({ values, isNegated }) => !isNegated && values.every((value) => value === link)))
    return 'none';
  if (extent === 'unknown') return sources.length + inputs.length > 0 ? 'some' : 'none';
  return outputs.length > 0 && extent === 'all' ? 'some' : extent;
}

/** Sets by name are taken to hold it. */
function covers(text: string, ip: string): boolean {
  if (text.startsWith('@')) return true;
  const address = Address.parse(ip);
  const [first, last] = text.split('-').map((part) => Address.tryParse(part));
  if (first && last) return first.compare(address) <= 0 && address.compare(last) <= 0;
  return (first?.equals(address) ?? false) || (Prefix.tryParse(text)?.contains(address) ?? false);
}

/** iptables marks the beginning of a name with "+", nft with "*". */
function isNameOf(pattern: string, link: string): boolean {
  if (pattern.startsWith('@')) return true;
  return /[+*]$/.test(pattern) ? link.startsWith(pattern.slice(0, -1)) : pattern === link;
}
