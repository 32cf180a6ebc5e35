/** What networks share when they give away the same addresses. */

import type { SharedRegisters } from '../../lib/cni/plugin.ts';
import type { Ipam } from './config.ts';
import { endpointsOf } from './etcd-settings.ts';
import { groupOf } from './keys.ts';
import type { Pool } from './pools.ts';

/**
 * Where the taken addresses of a pool are recorded, leaving aside what the flat file may add.
 * @throws Error for an invalid address of a member of etcd.
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
