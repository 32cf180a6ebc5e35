/** Networks with the firewall plugin, and the plugin by itself. */

import { Attachment, type Conflist } from './chain.ts';

/** A dual-stack bridge, named like the network, followed by the firewall plugin with the given keys. */
export function firewallNet(
  cniVersion: string,
  keys: object = {},
  bridge = 'br0',
  subnet = '10.5',
): Conflist {
  return {
    cniVersion,
    name: bridge,
    plugins: [
      {
        type: 'bridge',
        bridge,
        isDefaultGateway: true,
        ipam: {
          type: 'host-local',
          ranges: [[{ subnet: `${subnet}.0.0/24` }], [{ subnet: `fd00:${subnet.slice(-1)}::/64` }]],
        },
      },
      { type: 'firewall', ...keys },
    ],
  };
}

/** A network without its firewall plugin. */
export function withoutFirewall(network: Conflist): Conflist {
  return { ...network, plugins: network.plugins.filter(({ type }) => type !== 'firewall') };
}

/** The firewall plugin alone, for a pod that is attached already. */
export function firewallAlone({ host, pod, network, options }: Attachment, keys: object): Attachment {
  return new Attachment(host, pod, { ...network, plugins: [{ type: 'firewall', ...keys }] }, options);
}
