/**
 * IPPool objects of whereabouts: the addresses of a range that are taken, by their offset from the address in
 * "range". Source: type IPPoolSpec of whereabouts' API v1alpha1.
 *
 * Addresses in quarantine stay in the list, as those of the container that had them, so that whereabouts does
 * not give them away either; an annotation, which whereabouts leaves as it is, says until when.
 */

import { CniError, ErrorCode } from '../../../lib/errors.ts';
import { Address, Prefix } from '../../../lib/ip.ts';
import type { ObjectMeta } from '../../../lib/kubernetes/client.ts';
import { isObject } from '../../../lib/object.ts';
import { narrowPool, type Pool } from '../pools.ts';

const annotation = 'cni-plugins-ts/quarantine';

/**
 * How long the annotation may be. The API refuses any change that would give an object more than 262,144
 * bytes of annotations.
 */
const longestAnnotation = 200 * 1024;

/** The largest offset that whereabouts reads. */
export const largestOffset = 2n ** 63n - 1n;

/** An object as the API gives it. */
export interface PoolObject {
  readonly metadata: ObjectMeta;
  readonly spec?: { readonly range?: unknown; readonly allocations?: unknown };
}

/** The allocation at an offset. */
export interface Allocation {
  /** Container ID. */
  readonly id: string;
  /** Namespace and name of the pod, as in "default/web". */
  readonly podref: string;
  /** Old versions do not write it. */
  readonly ifname?: string | undefined;
}

/** An address that is taken. */
export interface Entry extends Allocation {
  readonly offset: string;
  readonly address: Address;
  /** End of its quarantine, in seconds since 1970; undefined while a container has it. */
  readonly until: number | undefined;
}

/** What to enter at an address; without an allocation, its entry is removed. */
export interface Change {
  readonly address: Address;
  readonly allocation: Allocation | undefined;
  /** End of its quarantine, in seconds since 1970. */
  readonly until?: number | undefined;
}

export class IpPool {
  readonly name: string;
  readonly entries: readonly Entry[];
  private readonly resourceVersion: string;
  private readonly base: Address;
  private readonly hasAnnotation: boolean;

  /**
   * @param subnet of the configuration, if it is known.
   * @throws CniError when the object has another range, or none.
   */
  constructor({ metadata, spec: given }: PoolObject, subnet?: Prefix) {
    const spec = isObject(given) ? given : {};
    this.name = metadata.name;
    this.resourceVersion = metadata.resourceVersion ?? '';
    const range = typeof spec.range === 'string' ? Prefix.tryParse(spec.range) : undefined;
    if (!range || (subnet && !subnet.contains(range.address)))
      throw new CniError(
        ErrorCode.InvalidNetworkConfig,
        `IPPool "${this.name}" has range ${JSON.stringify(spec.range)}, which is not ${subnet ?? 'a network'}. Correct the object, or set another "network_name"`,
      );
    this.base = range.address;
    const text = metadata.annotations?.[annotation];
    this.hasAnnotation = text !== undefined;
    const waits = parseWaits(text);
    const allocations = isObject(spec.allocations) ? spec.allocations : {};
    this.entries = Object.entries(allocations).flatMap(([offset, value]) => {
      const address = this.addressAt(offset);
      // An address whose entry another suite has written in its own way is in use all the same.
      const { id, podref, ifname } = isObject(value) ? value : {};
      const entry = { id: textOf(id), podref: textOf(podref), ifname: textOf(ifname) || undefined };
      const wait = waits.get(offset);
      return address
        ? [{ ...entry, offset, address, until: wait?.id === entry.id ? wait.until : undefined }]
        : [];
    });
  }

  /** Reads an object; undefined for one without a range. */
  static tryRead(object: PoolObject): IpPool | undefined {
    try {
      return new IpPool(object);
    } catch {
      return undefined;
    }
  }

  /** An object for a range that has none. */
  static empty(name: string, range: Prefix): PoolObject {
    return { metadata: { name }, spec: { range: `${range}`, allocations: {} } };
  }

  /** Addresses that cannot be given away at a given time, in seconds since 1970. */
  takenAt(now: number): Set<bigint> {
    return new Set(
      this.entries
        .filter(({ until }) => until === undefined || until > now)
        .map(({ address }) => address.value),
    );
  }

  /**
   * The part of a range that this object can hold. As in whereabouts, offsets count from the address in
   * "range" as it is written, even if that is not the first one of its network; and they are not negative.
   * @throws Error when there is none.
   */
  usableOf(range: Pool): Pool {
    return this.base.compare(range.start) > 0 ? narrowPool(range, this.base, range.end) : range;
  }

  at(address: Address): Entry | undefined {
    return this.entries.find((entry) => entry.address.equals(address));
  }

  /** Addresses whose quarantine is over. @param now in seconds since 1970. @param most how many. */
  expiredAt(now: number, most: number): readonly Entry[] {
    return this.entries.filter(({ until }) => until !== undefined && until <= now).slice(0, most);
  }

  /** Whether the annotation has room for the quarantines that are left after changes. */
  hasRoomFor(changes: readonly Change[]): boolean {
    return (this.waitsAfter(changes) ?? '').length <= longestAnnotation;
  }

  /** A merge patch that makes changes, if nobody else has changed the object. */
  patch(changes: readonly Change[]): object {
    const allocations = changes.map(({ address, allocation }) => [
      this.offsetOf(address),
      allocation ?? null,
    ]);
    const text = this.waitsAfter(changes);
    return {
      metadata: {
        resourceVersion: this.resourceVersion,
        ...((text !== null || this.hasAnnotation) && { annotations: { [annotation]: text } }),
      },
      spec: { allocations: Object.fromEntries(allocations) },
    };
  }

  /** The annotation once changes are made; null for none. */
  private waitsAfter(changes: readonly Change[]): string | null {
    const changed = new Map(changes.map(({ address, ...change }) => [this.offsetOf(address), change]));
    const waits = [
      ...this.entries.filter(({ offset }) => !changed.has(offset)),
      ...[...changed].map(([offset, { allocation, until }]) => ({ offset, id: allocation?.id, until })),
    ].flatMap(({ offset, id, until }) => (until === undefined ? [] : [[offset, { id, until }]]));
    return waits.length > 0 ? JSON.stringify(Object.fromEntries(waits)) : null;
  }

  private addressAt(offset: string): Address | undefined {
    if (!/^\d{1,19}$/.test(offset) || BigInt(offset) > largestOffset) return undefined;
    const value = this.base.value + BigInt(offset);
    return value < 1n << (this.base.family === 4 ? 32n : 128n)
      ? new Address(this.base.family, value)
      : undefined;
  }

  private offsetOf(address: Address): string {
    return `${address.value - this.base.value}`;
  }
}

const textOf = (value: unknown): string => (typeof value === 'string' ? value : '');

/** Reads the annotation; empty for an invalid one. */
function parseWaits(text = '{}'): Map<string, { id: string; until: number }> {
  try {
    const value: unknown = JSON.parse(text);
    return new Map(
      Object.entries(isObject(value) ? value : {}).flatMap(([offset, wait]) => {
        const { id, until } = isObject(wait) ? wait : {};
        return typeof id === 'string' && Number.isSafeInteger(until)
          ? [[offset, { id, until: until as number }]]
          : [];
      }),
    );
  } catch {
    return new Map();
  }
}
