/** Networks with port mappings, and what to map. */

import type { AttachOptions, Conflist } from './chain.ts';

/** A dual-stack bridge followed by portmap with the given keys. */
export function portNet(keys: object = {}, name = 'net'): Conflist {
  return {
    cniVersion: '1.1.0',
    name,
    plugins: [
      {
        type: 'bridge',
        bridge: 'br0',
        isDefaultGateway: true,
        ipMasq: true,
        hairpinMode: true,
        ipam: { type: 'host-local', ranges: [[{ subnet: '10.5.0.0/24' }], [{ subnet: 'fd00:5::/64' }]] },
      },
      { type: 'portmap', capabilities: { portMappings: true }, ...keys },
    ],
  };
}

/** Capability arguments of the runtime. */
export const ports = (
  ...list: [hostPort: number, containerPort: number, protocol?: string, hostIP?: string][]
): AttachOptions => ({
  capabilities: {
    portMappings: list.map(([hostPort, containerPort, protocol = 'tcp', hostIP]) => ({
      hostPort,
      containerPort,
      protocol,
      ...(hostIP && { hostIP }),
    })),
  },
});
