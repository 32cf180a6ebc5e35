/**
 * The file in which flanneld publishes what it leased for this node. Source: flannel's documentation,
 * "subnet.env".
 */

import { errnoOf, readRegularFile } from '../../lib/file.ts';
import { Prefix } from '../../lib/ip.ts';

/** What flanneld leased, and how it wants packets treated. */
export interface SubnetEnv {
  /** The networks that all nodes share, of both families. */
  networks: Prefix[];
  /** This node's part of them: one subnet per family, IPv4 first. */
  subnets: Prefix[];
  /** MTU of the overlay in bytes. */
  mtu: number;
  /** True when flanneld masquerades by itself. */
  masquerades: boolean;
}

/**
 * Reads the file.
 * @throws Error when it is missing, incomplete, or has an invalid value.
 */
export function readSubnetEnv(file: string): SubnetEnv {
  const text = readFile(file);
  const values = new Map<string, string>();
  for (const line of text.split('\n')) {
    const equals = line.indexOf('=');
    if (equals > 0) values.set(line.slice(0, equals).trim(), line.slice(equals + 1).trim());
  }

  const missing = [
    ['FLANNEL_NETWORK', 'FLANNEL_IPV6_NETWORK'],
    ['FLANNEL_SUBNET', 'FLANNEL_IPV6_SUBNET'],
    ['FLANNEL_MTU'],
    ['FLANNEL_IPMASQ'],
  ].filter((names) => !names.some((name) => values.get(name)));
  if (missing.length > 0)
    throw new Error(
      `"${file}" lacks ${missing.map((names) => names.join(' or ')).join(', ')}. See that flanneld runs and writes it`,
    );

  const refuse = (name: string, wanted: string): never => {
    throw new Error(
      `"${file}" has ${name}="${values.get(name)!.slice(0, 80)}", but it must be ${wanted}. See that flanneld alone writes it`,
    );
  };
  const prefixes = (name: string, family: 4 | 6): Prefix[] => {
    const items = (values.get(name) || undefined)?.split(',') ?? [];
    const all = items.map((item) => {
      const prefix = Prefix.tryParse(item.trim());
      if (prefix?.family === family) return prefix.network;
      return refuse(name, `IPv${family} addresses with prefix lengths`);
    });
    // Each once: no route can be added twice.
    return [...new Map(all.map((prefix) => [`${prefix}`, prefix])).values()];
  };
  const subnet = (name: string, family: 4 | 6): Prefix[] => {
    const found = prefixes(name, family);
    return found.length > 1 ? refuse(name, 'one subnet') : found;
  };
  const mtu = values.get('FLANNEL_MTU')!;
  if (!/^\d{1,5}$/.test(mtu) || Number(mtu) > 65535) refuse('FLANNEL_MTU', 'a number of bytes up to 65535');

  return {
    networks: [...prefixes('FLANNEL_NETWORK', 4), ...prefixes('FLANNEL_IPV6_NETWORK', 6)],
    subnets: [...subnet('FLANNEL_SUBNET', 4), ...subnet('FLANNEL_IPV6_SUBNET', 6)],
    mtu: Number(mtu),
    masquerades: values.get('FLANNEL_IPMASQ') === 'true',
  };
}

function readFile(file: string): string {
  try {
    return readRegularFile(file, { followLink: true });
  } catch (error) {
    const reason =
      errnoOf(error) === 'ENOENT' ? 'does not exist yet' : `cannot be read: ${(error as Error).message}`;
    throw new Error(
      `"${file}", in which flanneld tells this node's subnet, ${reason}. See that flanneld runs, or set "subnetFile"`,
      { cause: error },
    );
  }
}
