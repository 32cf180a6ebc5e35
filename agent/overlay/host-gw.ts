/** The backend host-gw: each node is the gateway to its subnets, on a link that all nodes share. */

import { type Dataplane, type DataplaneOptions, familiesOf, publicIpOf, wayTo } from './dataplane.ts';
import { reconcileRoutes } from './routes.ts';

/** @throws Error when this node is known by an address that is not its own. */
export function hostGateway({ socket, config, uplink }: DataplaneOptions): Dataplane {
  const { link, local, publicIp } = uplink;
  for (const family of familiesOf(config))
    if (!publicIp[family]?.equals(local[family]))
      throw new Error(
        `Others are to reach this node at ${publicIp[family] ?? `no IPv${family} address`}, but interface "${link.name}" has ${local[family] ?? 'none'}. With backend "host-gw" both must be the same: leave out "public-ip", or use "vxlan"`,
      );
  return {
    mtu: link.mtu,
    reach: { backend: 'host-gw', publicIp: publicIpOf(config, uplink), macs: { 4: undefined, 6: undefined } },
    apply(_own, others) {
      return familiesOf(config).flatMap((family) => {
        const routes = others
          .flatMap((node) => wayTo(node, family) ?? [])
          .map(({ subnet, via }) => ({ dst: subnet, gw: via, link: link.index }));
        return reconcileRoutes(socket, family, routes, config.ranges[family]!, [link.index]);
      });
    },
  };
}
