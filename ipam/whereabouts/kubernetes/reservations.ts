/**
 * OverlappingRangeIPReservation objects of whereabouts, by which an address is given away only once even if
 * several ranges have it. Source: type OverlappingRangeIPReservationSpec of whereabouts' API v1alpha1.
 *
 * The container ID, which whereabouts leaves out, tells a pod's new container from the one that is released.
 */

import type { Address } from '../../../lib/ip.ts';
import { type KubernetesClient, type ObjectMeta, pathOf } from '../../../lib/kubernetes/client.ts';
import { failedAs } from '../../../lib/kubernetes/error.ts';
import { isObject } from '../../../lib/object.ts';
import type { Allocation } from './ip-pool.ts';
import type { IpPools } from './ip-pools.ts';
import { apiVersion, kindPath, reservationName } from './names.ts';
import { Tries } from './tries.ts';

interface ReservationObject {
  readonly metadata: ObjectMeta;
  readonly spec?: { readonly containerid?: unknown; readonly podref?: unknown; readonly ifname?: unknown };
}

export class Reservations {
  private readonly client: KubernetesClient;
  private readonly namespace: string;
  private readonly pools: IpPools;

  /** @param pools tell whether the container of a reservation still has its address. */
  constructor(client: KubernetesClient, namespace: string, pools: IpPools) {
    this.client = client;
    this.namespace = namespace;
    this.pools = pools;
  }

  /**
   * Reserves an address.
   * @param former allocation whose quarantine in the pool is over, if the address had one.
   * @param lapsedAt gives those whose quarantine in any pool is over, if nobody has got the address since.
   * @returns false when it is somebody else's.
   */
  async reserve(
    networkName: string,
    address: Address,
    own: Allocation,
    former: Allocation | undefined,
    lapsedAt: (address: Address) => Promise<readonly Allocation[]>,
  ): Promise<boolean> {
    const name = reservationName(networkName, address);
    const spec = { containerid: own.id, podref: own.podref, ifname: own.ifname };
    for (const tries = new Tries(`Reservation "${name}"`); ; await tries.next()) {
      try {
        const kind = 'OverlappingRangeIPReservation';
        await this.client.create(this.path(), { apiVersion, kind, metadata: { name }, spec });
        return true;
      } catch (error) {
        if (!failedAs(error, 'conflict')) throw error;
      }
      const found = await this.find(name);
      if (!found) continue;
      if (!isOf(found, own)) {
        const isLeft =
          former && isOf(found, former)
            ? !(await this.isOfAnother(found, address, former))
            : (await lapsedAt(address)).some((one) => isOf(found, one));
        if (!isLeft) return false;
      }
      if (found.spec?.containerid === own.id) return true;
      try {
        const { resourceVersion } = found.metadata;
        await this.client.patch(this.path(name), { metadata: { resourceVersion }, spec }, 'merge');
        return true;
      } catch (error) {
        if (!failedAs(error, 'conflict', 'not-found')) throw error;
      }
    }
  }

  /**
   * Gives an address back, unless it is somebody else's, or of the pod's new container.
   * @param isStillOwn asks whether the pool still has the address for the owner. If so, a container ID that
   *   is not the owner's and has no entry in any pool is a former one: whereabouts leaves it as it is when it
   *   gives the address to the next container of the pod.
   */
  async release(
    networkName: string,
    address: Address,
    owner: Allocation,
    isStillOwn: () => Promise<boolean>,
  ): Promise<void> {
    const name = reservationName(networkName, address);
    for (const tries = new Tries(`Reservation "${name}"`); ; await tries.next()) {
      const found = await this.find(name);
      if (!found || !isOf(found, owner)) return;
      if (
        hasOtherContainer(found, owner) &&
        (!(await isStillOwn()) || (await this.isOfAnother(found, address, owner)))
      )
        return;
      try {
        const { uid, resourceVersion } = found.metadata;
        await this.client.remove(this.path(name), { uid, resourceVersion });
        return;
      } catch (error) {
        if (failedAs(error, 'not-found')) return;
        if (!failedAs(error, 'conflict')) throw error;
      }
    }
  }

  /** Whether an address is reserved for the pod of an allocation. */
  async has(networkName: string, address: Address, owner: Allocation): Promise<boolean> {
    const found = await this.find(reservationName(networkName, address));
    return found !== undefined && isOf(found, owner);
  }

  /** Whether a reservation is for another container of the pod, which has the address from another pool. */
  private async isOfAnother(found: ReservationObject, address: Address, owner: Allocation): Promise<boolean> {
    return (
      hasOtherContainer(found, owner) &&
      (await this.pools.isHeldBy(address, found.spec!.containerid as string))
    );
  }

  private async find(name: string): Promise<ReservationObject | undefined> {
    try {
      return await this.client.read(this.path(name));
    } catch (error) {
      if (failedAs(error, 'not-found')) return undefined;
      throw error;
    }
  }

  private path(name?: string): string {
    const all = kindPath(this.namespace, 'overlappingrangeipreservations');
    return name === undefined ? all : `${all}${pathOf(name)}`;
  }
}

/** Whether a reservation is for the same pod and interface; old versions do not write the interface. */
function isOf({ spec: given }: ReservationObject, { podref, ifname }: Allocation): boolean {
  const spec = isObject(given) ? given : {};
  return spec.podref === podref && (!spec.ifname || !ifname || spec.ifname === ifname);
}

/** Whether a reservation names another container; whereabouts names none. */
function hasOtherContainer({ spec }: ReservationObject, { id }: Allocation): boolean {
  const { containerid } = isObject(spec) ? spec : {};
  return typeof containerid === 'string' && containerid !== '' && containerid !== id;
}
