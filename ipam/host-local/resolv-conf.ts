/** Resolver settings from a file. Source: resolv.conf(5). */

import { readFileSync } from 'node:fs';
import type { Dns } from '../../lib/cni/result.ts';

/** Reads a resolv.conf. @throws Error when the file cannot be read. */
export function readResolvConf(file: string): Dns {
  let text: string;
  try {
    text = readFileSync(file, 'utf8');
  } catch (error) {
    throw new Error(`Cannot read "ipam.resolvConf", "${file}". Correct the path or take the key out`, {
      cause: error,
    });
  }
  const dns: Required<Omit<Dns, 'domain'>> & Dns = { nameservers: [], search: [], options: [] };
  for (const line of text.split('\n')) {
    const [keyword, ...values] = line.trim().split(/\s+/);
    if (keyword === 'nameserver' && values[0]) dns.nameservers.push(values[0]);
    else if (keyword === 'domain' && values[0]) dns.domain = values[0];
    else if (keyword === 'search') dns.search.push(...values);
    else if (keyword === 'options') dns.options.push(...values);
  }
  return dns;
}
