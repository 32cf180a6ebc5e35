/** How whereabouts names its objects, so that nodes with either suite share them. */

import type { Address, Prefix } from '../../../lib/ip.ts';
import { pathOf } from '../../../lib/kubernetes/client.ts';

export const apiVersion = 'whereabouts.cni.cncf.io/v1alpha1';

/** Path of the objects of one kind. @param plural as in "ippools". */
export function kindPath(namespace: string, plural: string): string {
  return pathOf('apis', ...apiVersion.split('/'), 'namespaces', namespace, plural);
}

/** Name of the IPPool of a range. @param node whose slice the range is; "" for that of all nodes. */
export function poolName(networkName: string, node: string, range: Prefix): string {
  return [networkName, node, asName(`${range}`)].filter(Boolean).join('-');
}

/** Name of the OverlappingRangeIPReservation of an address. */
export function reservationName(networkName: string, address: Address): string {
  return [networkName, asName(`${address}`)].filter(Boolean).join('-');
}

function asName(text: string): string {
  return (text.endsWith(':') ? `${text}0` : text).replaceAll(/[:/]/g, '-');
}
