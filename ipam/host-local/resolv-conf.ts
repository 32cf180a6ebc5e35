/** Resolver settings from a file. Source: resolv.conf(5). */

import type { Dns } from '../../lib/cni/result.ts';
import { readRegularFile } from '../../lib/file.ts';

/** Reads a resolv.conf, which may be a symbolic link. @throws Error when the file cannot be read. */
export function readResolvConf(file: string): Dns {
  let text: string;
  try {
    text = readRegularFile(file, { followLink: true });
  } catch (error) {
    throw new Error(
      `Cannot read "ipam.resolvConf", "${file}": ${(error as Error).message}. Correct the path, or remove the key`,
    );
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
