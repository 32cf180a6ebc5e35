/** Parses rules of iptables-save and nft, as far as they concern what a pod sends. */

import { parseRules } from '../../lib/firewall/rules.ts';
import type { Family } from '../../lib/ip.ts';
import { type Chains, type FirewallRule, type Holds, type Match, together } from './lets-through.ts';

const verdicts = new Map([
  ['ACCEPT', 'accept'],
  ['DROP', 'drop'],
  ['REJECT', 'drop'],
  ['RETURN', 'return'],
] as const) as ReadonlyMap<string, 'accept' | 'drop' | 'return'>;

/** Reads the lines of a table in iptables-save. */
export function iptablesChains(lines: readonly string[]): Chains {
  const rules = parseRules(lines.join('\n'));
  return new Map(
    [...Map.groupBy(rules, ({ chain }) => chain)].map(([chain, own]) => [
      chain,
      own.map(({ words }) => fromWords(words)),
    ]),
  );
}

/** Reads the words up to the target; after it come the target's own options. */
function fromWords(words: readonly string[]): FirewallRule {
  const [sources, inputs, outputs]: Match[][] = [[], [], []] as const;
  const others: Holds[] = [];
  /** Whether there is a match that is not understood. */
  let hasUnknown = false;
  let isNegated = false;
  let i = 0;
  for (; i < words.length && words[i] !== '-j' && words[i] !== '-g'; i++) {
    const [word, value = ''] = [words[i], words[i + 1]];
    if (word === '!') {
      isNegated = true;
      continue;
    }
    if (word === '-s' || word === '--src-range') sources.push({ values: [value], isNegated });
    else if (word === '-i') inputs.push({ values: [value], isNegated });
    else if (word === '-o') outputs.push({ values: [value], isNegated });
    else if (word === '-d' || word === '-p' || /^--[ds]?ports?$|^--destination-ports$/.test(word!))
      others.push(isNegated ? 'maybe' : 'never');
    else if (word === '--ctstate' || word === '--state')
      others.push(value.split(',').includes('NEW') !== isNegated ? 'always' : 'never');
    else if (word !== '-m' && word !== '--comment') {
      hasUnknown = true;
      continue; // It may have no value, or more than one.
    }
    i++;
    isNegated = false;
  }
  const [how, target = ''] = words.slice(i);
  const jump = how === '-g' ? 'goto' : how === '-j' ? 'jump' : undefined;
  if (hasUnknown) others.push(unknownHolds([...sources, ...inputs]));
  const verdict = verdicts.get(target) ?? jump;
  return { sources, inputs, outputs, others: together(others), verdict, target };
}

/** Reads what "nft list table" prints. @param family whose packets count. */
export function nftChains(lines: readonly string[], family: Family): Chains {
  const chains = new Map<string, FirewallRule[]>();
  let rules: FirewallRule[] | undefined;
  for (const line of lines.map((one) => one.trim())) {
    const name = /^chain (\S+) \{/.exec(line)?.[1];
    if (name !== undefined) {
      rules = [];
      chains.set(name, rules);
    } else if (line === '}') rules = undefined;
    else if (line !== '') rules?.push(fromLine(line, family));
  }
  return chains;
}

const value = /((?:!= )?)(\{[^}]*\}|\S+)/.source;
/** Matches of protocols, ports and connections: a rule with one concerns only part of what a pod sends. */
const narrow = /\b(?:meta l4proto|ip protocol|ip6 nexthdr|tcp|udp|sctp|th|icmp|icmpv6|ct)\b/;

function fromLine(line: string, family: Family): FirewallRule {
  const others: Holds[] = [];
  let rest = line.replace(/ comment "[^"]*"$| ?\bcounter(?: packets \d+ bytes \d+)?/g, '');
  /** Removes the matches of a kind from the rest, and returns them. */
  const take = (kind: string): Match[] => {
    const found: Match[] = [];
    rest = rest.replace(new RegExp(`\\b${kind} ${value}`, 'g'), (_, not: string, text: string) => {
      found.push({ values: text.match(/[^\s,{}"]+/g) ?? [], isNegated: not !== '' });
      return '';
    });
    return found;
  };
  const ending = /(?:^| )(accept|drop|return|reject(?: with .*)?|(jump|goto) (\S+))$/.exec(rest);
  rest = rest.slice(0, ending?.index ?? rest.length);
  const [own, other] = family === 4 ? ['ip', 'ip6'] : ['ip6', 'ip'];
  if (new RegExp(`\\b${other} [sd]addr\\b|\\bmeta nfproto ipv${family === 4 ? 6 : 4}\\b`).test(rest))
    others.push('never');
  take('meta nfproto');
  const sources = take(`${own} saddr`);
  const inputs = take('(?:meta )?iif(?:name)?');
  const outputs = take('(?:meta )?oif(?:name)?');
  for (const { isNegated } of take(`${own} daddr`)) others.push(isNegated ? 'maybe' : 'never');
  for (const { values, isNegated } of take('ct state'))
    others.push(values.includes('new') !== isNegated ? 'always' : 'never');
  if (rest.trim() !== '') others.push(narrow.test(rest) ? 'never' : unknownHolds([...sources, ...inputs]));
  const [, text, jump, target = ''] = ending ?? [];
  const verdict = (jump ?? verdicts.get(text?.split(' ')[0]?.toUpperCase() ?? '')) as FirewallRule['verdict'];
  return { sources, inputs, outputs, others: together(others), verdict, target };
}

/**
 * Whether a match that is not understood holds: it may, in a rule for certain senders. Other rules are taken
 * to be about something else, such as the packets that kube-proxy marks.
 */
function unknownHolds(ofSender: readonly Match[]): Holds {
  return ofSender.length > 0 ? 'maybe' : 'never';
}
