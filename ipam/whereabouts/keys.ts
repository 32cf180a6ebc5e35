/**
 * Where addresses and their owners are kept in etcd, with a key for each:
 *
 *     /cni/addresses/in/<group>/<family>-<address in hexadecimal digits>    who has the address
 *     /cni/addresses/of/<node>/<network>/<container ID>/<interface>         addresses of an attachment
 *     /cni/addresses/back/<identity>                                        addresses that wait for a pod
 *     /cni/addresses/nodes/<node>                                           with a lease: the node is alive
 *     /cni/addresses/nodes/<node>/<host>                                    the same for a host
 *
 * In a group, an address is given away only once: all networks of one "network_name" are a group, or each
 * range where ranges may overlap. Addresses sort by their digits, so that a part of a range can be read. A
 * host is a machine, as opposed to others whose node has the same name.
 */

import type { AttachmentId } from '../../lib/attachment.ts';
import { Address, type Family } from '../../lib/ip.ts';
import type { Ipam } from './config.ts';
import { formatPool, type Pool } from './pools.ts';

export const root = '/cni/addresses/';

/** An attachment, and the node that it is on. */
export interface Owner extends AttachmentId {
  readonly node: string;
}

/** An address in etcd. */
export interface Place {
  readonly group: string;
  readonly address: Address;
}

/** What an attachment has. */
export interface Holding {
  readonly places: readonly Place[];
  /** Whom the addresses go back to while they are in quarantine; "" for nobody. */
  readonly identity: string;
  /** The host that the attachment is on, see host.ts; undefined where it is not known. */
  readonly host?: string | undefined;
}

/** The group that a pool belongs to. */
export function groupOf(ipam: Ipam, pool: Pool): string {
  // No encoded name contains "@".
  const name = ipam.network_name ? encodeURIComponent(ipam.network_name) : '@';
  const isAlone = ipam.enable_overlapping_ranges === false;
  return isAlone ? `${name}@${encodeURIComponent(formatPool(pool))}` : name;
}

export function addressKey({ group, address }: Place): string {
  return `${root}in/${group}/${address.family}-${digits(address)}`;
}

/** A key that sorts right behind that of an address. */
export function behind(place: Place): string {
  return `${addressKey(place)}~`;
}

/** The address that a key stands for; undefined for any other key. */
export function addressOf(key: string): Address | undefined {
  const [, family, hex] = /\/([46])-([0-9a-f]{8}|[0-9a-f]{32})$/.exec(key) ?? [];
  return hex === undefined ? undefined : new Address(Number(family) as Family, BigInt(`0x${hex}`));
}

export function ownerKey({ node, network, containerId, ifname }: Owner): string {
  return `${nodeKey(node, network)}${encodeURIComponent(containerId)}/${encodeURIComponent(ifname)}`;
}

/** What the keys of owners of one network on one node begin with. */
export function nodeKey(node: string, network: string): string {
  return `${root}of/${encodeURIComponent(node)}/${encodeURIComponent(network)}/`;
}

/** The key that exists while a node is alive. @param host one with its name; undefined for any of them. */
export function presenceKey(node: string, host?: string): string {
  const key = `${root}nodes/${encodeURIComponent(node)}`;
  return host === undefined ? key : `${key}/${encodeURIComponent(host)}`;
}

export function identityKey(identity: string): string {
  return `${root}back/${encodeURIComponent(identity)}`;
}

/** The owner that a key stands for; undefined for any other key. */
export function ownerOf(key: string): Owner | undefined {
  const parts = key.startsWith(`${root}of/`) ? key.slice(`${root}of/`.length).split('/') : [];
  const [node, network, containerId, ifname] = parts.map(decodePart);
  if (parts.length !== 4 || !node || !network || !containerId || !ifname) return undefined;
  return { node, network, containerId, ifname };
}

/** The value of an address that is taken: the key of its owner. */
export const ownedValue = (owner: Owner): string => JSON.stringify({ owner: ownerKey(owner) });

/** The owner that an address's value names; undefined for anything else. */
export function ownerAt(text: string | undefined): Owner | undefined {
  try {
    const { owner } = JSON.parse(text ?? '{}') as { owner?: unknown };
    return typeof owner === 'string' ? ownerOf(owner) : undefined;
  } catch {
    return undefined;
  }
}

/** The value of an address in quarantine. @param identity whom it goes back to. */
export const waitingValue = (identity: string): string => JSON.stringify({ back: identity });

/** The value of an owner, or of an identity. */
export function formatHolding({ places, identity, host }: Holding): string {
  return JSON.stringify({
    identity,
    addresses: places.map(({ group, address }) => ({ group, address: `${address}` })),
    host,
  });
}

/** Reads the value of an owner or identity; empty for anything else. */
export function parseHolding(text: string | undefined): Holding {
  try {
    const value = JSON.parse(text ?? '{}') as { identity?: unknown; addresses?: unknown; host?: unknown };
    const list = Array.isArray(value.addresses)
      ? (value.addresses as { group?: unknown; address?: unknown }[])
      : [];
    const places = list.flatMap((one) => {
      const address = typeof one?.address === 'string' ? Address.tryParse(one.address) : undefined;
      return address && typeof one.group === 'string' ? [{ group: one.group, address }] : [];
    });
    return {
      places,
      identity: typeof value.identity === 'string' ? value.identity : '',
      host: typeof value.host === 'string' ? value.host : undefined,
    };
  } catch {
    return { places: [], identity: '' };
  }
}

export function samePlace(a: Place, b: Place): boolean {
  return a.group === b.group && a.address.equals(b.address);
}

function digits({ family, value }: Address): string {
  return value.toString(16).padStart(family === 4 ? 8 : 32, '0');
}

function decodePart(part: string): string | undefined {
  try {
    return decodeURIComponent(part);
  } catch {
    return undefined;
  }
}
