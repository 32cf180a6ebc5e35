/**
 * Rules of iptables as data: the chain that a rule is in and its words, in the form in which iptables lists
 * them. What is written in that form can be compared with what is listed, whatever the order of options.
 * Source: iptables(8).
 */

import type { Prefix } from '../ip.ts';

/** A rule, or what to look for. */
export interface Rule {
  /** Chain it is in. */
  readonly chain: string;
  /**
   * Its matches and its target, as `iptables -S` lists them: prefixes with their length and host bits zero,
   * no prefix that matches every address, `-m tcp` before `--dport`, `--dports` rather than
   * `--destination-ports`.
   */
  readonly words: readonly string[];
}

/** A rule that attachments share. */
export interface SharedRule extends Rule {
  /** Whether it goes to the head of its chain rather than to the end. */
  readonly first?: boolean;
}

/** What {@link renderRule} makes of a rule: append, insert at the head, delete, or check. */
export type RuleOperation = '-A' | '-I' | '-D' | '-C';

/**
 * The line of iptables-restore that does something with a rule.
 * @throws Error when a word has a line break.
 */
export function renderRule(operation: RuleOperation, { chain, words }: Rule): string {
  return [operation, quote(chain), ...words.map(quote)].join(' ');
}

/**
 * Quotes a word for iptables-restore.
 * @throws Error when it could end the line and begin a command of its own.
 */
function quote(word: string): string {
  if (/[\n\r\0]/.test(word))
    throw new Error(`"${word}" has a line break, which no rule can hold. Take it out`);
  return /^[\w./:,!-]+$/.test(word) ? word : `"${word.replaceAll(/[\\"]/g, '\\$&')}"`;
}

/** Reads what `iptables -S` and iptables-save print, of which only the rules count. */
export function parseRules(listing: string): Rule[] {
  return listing.split('\n').flatMap((line) => {
    if (!line.startsWith('-A ')) return [];
    const [, chain = '', ...words] = splitWords(line);
    return [{ chain, words }];
  });
}

/** Words of a line; those with blanks are in double quotes with backslashes. */
function splitWords(line: string): string[] {
  // What is in quotes is at odd indexes.
  return line
    .split(/"((?:[^"\\]|\\.)*)"/)
    .flatMap((part, i) => (i % 2 === 0 ? part.split(' ').filter(Boolean) : part.replaceAll(/\\(.)/g, '$1')));
}

/** True when two rules are the same, whatever the order of their options. */
export function isSameRule(one: Rule, other: Rule): boolean {
  return ruleKey(one) === ruleKey(other);
}

/** A key that the same rules share, whatever the order of their options, and no others. */
export function ruleKey({ chain, words }: Rule): string {
  const options: string[][] = [[]];
  for (const [i, word] of words.entries()) {
    const isFirst = word === '!' || (word.startsWith('-') && words[i - 1] !== '!');
    if (isFirst) options.push([word]);
    else options.at(-1)!.push(word);
  }
  return [chain, ...options.map((option) => option.join(' ')).sort()].join('\n');
}

/** The word after an option, such as the chain after "-j". */
export function option({ words }: Rule, name: string): string | undefined {
  const at = words.indexOf(name);
  return at < 0 ? undefined : words[at + 1];
}

/** Where a rule leads: the word after "-j". */
export function targetOf(rule: Rule): string | undefined {
  return option(rule, '-j');
}

/** The words of the match for a comment. */
export function commentWords(text: string): string[] {
  return ['-m', 'comment', '--comment', text];
}

/**
 * The words of a match for an address. There are none for the prefix that holds every address.
 * @param name such as "-s".
 */
export function prefixWords(name: string, prefix: Prefix): string[] {
  return prefix.length === 0 ? [] : [name, `${prefix.network}`];
}
