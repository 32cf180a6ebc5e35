/**
 * What a pod's annotations say about the networks that it has. Source: Kubernetes Network Custom Resource
 * Definition De-facto Standard, version 1.3, section 4.1.2, with the keys that Multus adds.
 */

import type { Result } from '../cni/result.ts';
import type { AddedDelegate } from './delegates.ts';

/** The annotation by which other programs learn which networks a pod has. */
export const statusAnnotation = 'k8s.v1.cni.cncf.io/network-status';

/** The networks of a pod as JSON for {@link statusAnnotation}. The first one is its default network. */
export function networkStatus(delegates: readonly AddedDelegate[]): string {
  return JSON.stringify(
    delegates.flatMap((one, i) => statusesOf(one, i === 0)),
    null,
    4,
  );
}

/** An element for each interface of the pod; a plugin may make several. */
function statusesOf({ label, ifname, result, deviceInfo }: AddedDelegate, isDefault: boolean): object[] {
  const { interfaces, ips, routes, dns } = result;
  const own = [...interfaces.entries()].filter(([, { sandbox }]) => sandbox);
  // Results of old versions have no interfaces.
  if (own.length === 0 && ips.length > 0) own.push([-1, { name: ifname }]);
  const indexes = own.map(([index]) => index);
  const gateways = routes.flatMap(({ dst, gw }) => (dst.length === 0 && gw ? [`${gw}`] : []));
  const withGateway = ips.find((ip) => ip.gateway && indexes.includes(ip.interface ?? -1))?.interface;
  const first = withGateway ?? indexes[0];
  return own.map(([index, { name, mac, mtu }]) => {
    const addresses = addressesOf(ips, index, indexes);
    return {
      ...{ name: label, interface: name },
      ...(addresses.length > 0 && { ips: addresses }),
      ...(mac && { mac }),
      ...(mtu && { mtu }),
      ...(isDefault && index === first && { default: true }),
      dns,
      ...(deviceInfo && { 'device-info': deviceInfo }),
      ...(gateways.length > 0 && { gateway: gateways }),
    };
  });
}

/** Addresses without prefix length. One that belongs to no interface of the pod is attributed to the last. */
function addressesOf(ips: Result['ips'], index: number, indexes: readonly number[]): string[] {
  const ownerOf = (wanted = -1) => (indexes.includes(wanted) ? wanted : indexes.at(-1));
  return ips.filter((ip) => ownerOf(ip.interface) === index).map(({ address }) => `${address.address}`);
}
