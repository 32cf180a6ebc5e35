/** The networks that the pods of a soak want to be on. */

import type { Conflist } from '../../test/support/chain.ts';

/** Port of each pod on which it says who it is. */
export const podPort = 80;
/** Ports of the host that lead to pods begin here. */
const firstHostPort = 20_000;
const hostPorts = 10_000;

/** A network, and how many of the pods want to be on it. */
export interface SoakNetwork {
  readonly conflist: Conflist;
  /** Between 0 and 1. */
  readonly share: number;
  /** How many addresses it has. */
  readonly size: number;
  /** Whether ports of the host lead to its pods. */
  readonly mapsPorts: boolean;
}

/** The first address that a network gives away, by its last byte. */
const firstByte = 10;

/**
 * A bridge network with everything that cleans up by itself, and a network of veth pairs, each with two
 * thirds as many addresses as pods want at once.
 */
export function networksFor(atOnce: number): SoakNetwork[] {
  const ipam = (subnet: string, size: number) => ({
    type: 'host-local',
    ranges: [
      [
        {
          subnet: `${subnet}.0/24`,
          rangeStart: `${subnet}.${firstByte}`,
          rangeEnd: `${subnet}.${firstByte + size - 1}`,
        },
      ],
    ],
  });
  const network = (share: number, name: string, plugins: (size: number) => Conflist['plugins']) => {
    const size = Math.max(Math.floor((atOnce * share * 2) / 3), 1);
    return { share, size, conflist: { cniVersion: '1.0.0', name, plugins: plugins(size) } };
  };
  return [
    {
      mapsPorts: true,
      ...network(2 / 3, 'soakbridge', (size) => [
        {
          type: 'bridge',
          bridge: 'soak0',
          isDefaultGateway: true,
          ipMasq: true,
          hairpinMode: true,
          ipam: ipam('10.90.0', size),
        },
        { type: 'portmap', capabilities: { portMappings: true } },
        { type: 'firewall', backend: 'iptables' },
        { type: 'bandwidth', ...limits },
      ]),
    },
    {
      mapsPorts: false,
      ...network(1 / 3, 'soakptp', (size) => [
        { type: 'ptp', ipMasq: true, ipam: { ...ipam('10.91.0', size), routes: [{ dst: '0.0.0.0/0' }] } },
      ]),
    },
  ];
}

/** High enough to be in nobody's way, in bits per second and bits. */
const limits = {
  ingressRate: 1_000_000_000,
  ingressBurst: 100_000_000,
  egressRate: 1_000_000_000,
  egressBurst: 100_000_000,
};

/**
 * The port of the host for a pod. Each gets another one: with the reference plugins, a port whose pod was
 * lost goes on leading to that.
 */
export function hostPortOf(life: number): number {
  return firstHostPort + (life % hostPorts);
}
