/** What flanneld leaves on a node for the flannel plugin. */

import { mkdirSync, writeFileSync } from 'node:fs';
import type { Host } from './host.ts';

/** Where the flannel plugin looks for it. */
export const subnetFile = '/run/flannel/subnet.env';

/**
 * Writes that file for a node with pods of 10.244.NUMBER.0/24 and fd00:10:244:NUMBER::/64.
 * @param more variables that override these.
 */
export function writeSubnetEnv(host: Host, number: number, more: Record<string, string> = {}): void {
  const values = {
    FLANNEL_NETWORK: '10.244.0.0/16',
    FLANNEL_SUBNET: `10.244.${number}.1/24`,
    FLANNEL_IPV6_NETWORK: 'fd00:10:244::/48',
    FLANNEL_IPV6_SUBNET: `fd00:10:244:${number}::1/64`,
    FLANNEL_MTU: '1450',
    FLANNEL_IPMASQ: 'true',
    ...more,
  };
  mkdirSync(host.file('/run/flannel'), { recursive: true });
  const lines = Object.entries(values).map((pair) => `${pair.join('=')}\n`);
  writeFileSync(host.file(subnetFile), lines.join(''));
}
