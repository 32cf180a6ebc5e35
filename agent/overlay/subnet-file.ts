/**
 * The file that tells the node's subnet to the plugin "flannel" and to other readers. Source: flannel's
 * pkg/subnet.
 */

import { readRegularFile } from '../../lib/file.ts';
import { type Family, Prefix } from '../../lib/ip.ts';
import { writeStateFile } from '../../lib/state-file.ts';
import { readSubnetEnv } from '../../plugins/flannel/subnet-env.ts';
import type { NetworkConfig } from './network-config.ts';
import type { Subnets } from './node.ts';

/**
 * Writes the file, unless it already says the same.
 * @param mtu of the overlay, in bytes. @param masquerades whether the agent does.
 * @throws CniError when it cannot be written.
 */
export function writeSubnetFile(
  file: string,
  { ranges }: NetworkConfig,
  subnets: Subnets,
  mtu: number,
  masquerades: boolean,
): void {
  const lines = (['', 'IPV6_'] as const).flatMap((infix) => {
    const family: Family = infix ? 6 : 4;
    const [range, subnet] = [ranges[family], subnets[family]];
    if (!range || !subnet) return [];
    const gateway = new Prefix(subnet.address.plus(1), subnet.length);
    return [`FLANNEL_${infix}NETWORK=${range.network}`, `FLANNEL_${infix}SUBNET=${gateway}`];
  });
  const text = [...lines, `FLANNEL_MTU=${mtu}`, `FLANNEL_IPMASQ=${masquerades}`, ''].join('\n');
  if (tryRead(file) !== text) writeStateFile(file, text, 0o755, 0o644);
}

/** The subnets that the node had when the file was written. @returns undefined when unknown. */
export function previousSubnets(file: string): Subnets | undefined {
  try {
    const { subnets } = readSubnetEnv(file);
    const [v4, v6] = ([4, 6] as const).map((family) => subnets.find((one) => one.family === family));
    return v4 && { 4: v4, 6: v6 };
  } catch {
    return undefined;
  }
}

function tryRead(file: string): string | undefined {
  try {
    return readRegularFile(file);
  } catch {
    return undefined;
  }
}
