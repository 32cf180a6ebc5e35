/** What networks share when they give away the same addresses. */

import type { SharedRegisters } from '../../lib/cni/plugin.ts';
import type { Ipam } from './config.ts';
import { endpointsOf } from './etcd-settings.ts';
import { groupOf } from './keys.ts';
import type { Pool } from './pools.ts';

/**
 * Where it is kept which addresses of a pool are taken. What the flat file adds is not looked for.
 * @throws Error for an address of a member of etcd that makes no sense.
 */
export function registersOf(ipam: Ipam, pool: Pool): SharedRegisters {
  const { network_name: addressSpace = '', kubernetes } = ipam;
  if (ipam.etcd_host) {
    const places = endpointsOf(ipam).map(({ origin }) => origin);
    return { addressSpace, places, names: [groupOf(ipam, pool)] };
  }
  return {
    addressSpace,
    places: kubernetes?.kubeconfig ? [kubernetes.kubeconfig] : [],
    names: [
      // The IPPool, which is that of the range. Each node has one of its own where there are slices.
      ...(ipam.node_slice_size ? [] : [`${pool.subnet}`]),
      // The reservations across all pools.
      ...(ipam.enable_overlapping_ranges === false ? [] : [groupOf(ipam, pool)]),
    ],
  };
}
