/**
 * Each node's entry in "subnets" below the prefix in etcd: a key that names the node's subnets, and a value
 * that says how to reach it. Source: flannel's pkg/subnet and pkg/lease, whose names and order these are.
 */

import { parseJson } from '../../lib/cni/json.ts';
import { Address, type Family, Prefix } from '../../lib/ip.ts';
import { formatMac, parseMac } from '../../lib/kernel/mac.ts';
import { isObject } from '../../lib/object.ts';
import type { NetworkConfig } from './network-config.ts';

/** The subnets of one node. */
export interface Subnets {
  readonly 4: Prefix;
  readonly 6: Prefix | undefined;
}

/** How to reach a node. */
export interface Reach {
  readonly backend: string;
  /** Its addresses on the network of the hosts. */
  readonly publicIp: Readonly<Record<Family, Address | undefined>>;
  /** MAC addresses of its VXLAN interfaces, by the family of their packets. */
  readonly macs: Readonly<Record<Family, string | undefined>>;
}

/** A node that has leased subnets. */
export interface Node extends Reach {
  readonly subnets: Subnets;
}

/** Name of a node's key, as in "10.244.1.0-24" or "10.244.1.0-24&fd00:1::-64". */
export function subnetKey(subnets: Subnets): string {
  const texts = [subnets[4], subnets[6]].filter((one) => one !== undefined);
  return texts.map(({ address, length }) => `${address}-${length}`).join('&');
}

/** Value of a node's key. @param vni of its VXLAN interfaces. */
export function reachValue({ backend, publicIp, macs }: Reach, vni: number): string {
  const data = (mac: string | undefined) => mac && { VNI: vni, VtepMAC: mac };
  return JSON.stringify({
    PublicIP: publicIp[4] ?? '0.0.0.0',
    PublicIPv6: publicIp[6] ?? null,
    BackendType: backend,
    BackendData: data(macs[4]),
    BackendV6Data: data(macs[6]),
  });
}

/** Reads the name of a node's key. @throws Error when it is not one. */
function parseSubnetKey(name: string): Subnets {
  const [v4, v6, ...more] = name.split('&').map((text) => Prefix.tryParse(text.replace(/-(\d+)$/, '/$1')));
  const isWhole = (prefix: Prefix | undefined) => prefix?.network.equals(prefix) && prefix.length > 0;
  const isSubnets =
    v4?.family === 4 &&
    isWhole(v4) &&
    more.length === 0 &&
    (name.includes('&') ? v6?.family === 6 && isWhole(v6) : true);
  if (!isSubnets) throw new Error('its name is not that of a subnet');
  return { 4: v4, 6: v6 };
}

/** Reads a node's entry. @throws Error when it is invalid. */
export function parseNode(name: string, value: string): Node {
  const subnets = parseSubnetKey(name);
  let data: unknown;
  try {
    data = parseJson(value);
  } catch {
    throw new Error('its value is not JSON');
  }
  if (!isObject(data)) throw new Error('its value is not a JSON object');
  const addressOf = (key: string, family: Family) => {
    const text = data[key] ?? '';
    const address = typeof text === 'string' ? Address.tryParse(text) : undefined;
    if (text !== '' && address?.family !== family) throw new Error(`"${key}" is not an IPv${family} address`);
    return address?.isUnspecified ? undefined : address;
  };
  const macOf = (key: string) => {
    const inner = data[key];
    const bytes = isObject(inner) && typeof inner.VtepMAC === 'string' ? parseMac(inner.VtepMAC) : undefined;
    return bytes && formatMac(bytes);
  };
  return {
    subnets,
    backend: typeof data.BackendType === 'string' ? data.BackendType : '',
    publicIp: { 4: addressOf('PublicIP', 4), 6: addressOf('PublicIPv6', 6) },
    macs: { 4: macOf('BackendData'), 6: macOf('BackendV6Data') },
  };
}

/** Whether a node's subnets are ones that the network can give. */
export function isOfNetwork({ ranges }: NetworkConfig, subnets: Subnets): boolean {
  const fits = (family: Family) => {
    const [range, subnet] = [ranges[family], subnets[family]];
    if (!range || !subnet) return !range && !subnet;
    const { address, length } = subnet;
    return length === range.length && address.compare(range.first) >= 0 && address.compare(range.last) <= 0;
  };
  return fits(4) && fits(6);
}

/** Whether two nodes have addresses in common. */
export function overlap(one: Subnets, other: Subnets): boolean {
  return one[4].overlaps(other[4]) || Boolean(one[6] && other[6]?.overlaps(one[6]));
}
