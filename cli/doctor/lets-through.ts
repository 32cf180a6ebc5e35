/** Rules of iptables-save and nft, as far as they are about what a pod sends. */

import { Address, Prefix } from '../../lib/ip.ts';

/**
 * Whether a rule of iptables-save or nft lets through what an address sends, or leads to rules that are about
 * it. Sets by name are taken to hold it.
 */
export function letsThrough(line: string, ip: string, link: string | undefined): boolean {
  if (!/-j ACCEPT\b|\b(?:accept|goto|jump)\b/.test(line) || /-j (?!ACCEPT)/.test(line)) return false;
  if (/^(?:counter (?:packets \d+ bytes \d+ )?)?accept$/.test(line)) return true;
  const sources = /(?<!! )-s (\S+)|ip6? saddr (?!!=)(?:\{([^}]*)\}|(\S+))/.exec(line);
  const source = sources?.slice(1).find((one) => one !== undefined);
  if (source !== undefined) return source.split(/[\s,]+/).some((one) => covers(one, ip));
  const inputs = /(?<!! )-i (\S+)|iifname (?!!=)(?:\{([^}]*)\}|(\S+))/.exec(line);
  const input = inputs?.slice(1).find((one) => one !== undefined);
  return input !== undefined && link !== undefined && input.split(/[\s,]+/).some((one) => matches(one, link));
}

function covers(text: string, ip: string): boolean {
  if (text.startsWith('@')) return true;
  const address = Address.parse(ip);
  const [first, last] = text.split('-').map((part) => Address.tryParse(part));
  if (first && last) return first.compare(address) <= 0 && address.compare(last) <= 0;
  return (first?.equals(address) ?? false) || (Prefix.tryParse(text)?.contains(address) ?? false);
}

/** iptables marks the beginning of a name with "+", nft with "*". */
function matches(pattern: string, link: string): boolean {
  const name = pattern.replaceAll('"', '');
  if (name.startsWith('@')) return true;
  return /[+*]$/.test(name) ? link.startsWith(name.slice(0, -1)) : name === link;
}
