/** The networks that the pods of a soak want to be on. */

import type { BackendName } from '../../lib/firewall/backend.ts';
import type { Conflist } from '../../test/support/chain.ts';
import { type Contender, contenders } from '../bench/call.ts';
import { ours } from '../bench/measure.ts';

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
  /** Who may do its calls. */
  readonly contenders: readonly Contender[];
}

/** What can be chosen for the networks. */
export interface NetworkOptions {
  /** For the network with port mappings. The reference does not take part with nftables, which it lacks. */
  readonly backend: BackendName;
  /** Whether pods have an IPv6 address as well. */
  readonly isDualStack: boolean;
}

/** The last byte of the first address that a network hands out. */
const firstByte = 10;

/**
 * A bridge network with everything that cleans up by itself, and a network of veth pairs, each with two
 * thirds as many addresses as pods want at once.
 */
export function networksFor(atOnce: number, { backend, isDualStack }: NetworkOptions): SoakNetwork[] {
  const ipam = (number: number, size: number) => {
    const last = firstByte + size - 1;
    const ipv4 = `10.${number}.0`;
    const ipv6 = `fd00:${number}::`;
    const ranges = [
      [{ subnet: `${ipv4}.0/24`, rangeStart: `${ipv4}.${firstByte}`, rangeEnd: `${ipv4}.${last}` }],
      [
        {
          subnet: `${ipv6}/64`,
          rangeStart: `${ipv6}${firstByte.toString(16)}`,
          rangeEnd: `${ipv6}${last.toString(16)}`,
        },
      ],
    ];
    return { type: 'host-local', ranges: isDualStack ? ranges : ranges.slice(0, 1) };
  };
  const routes = [{ dst: '0.0.0.0/0' }, ...(isDualStack ? [{ dst: '::/0' }] : [])];
  const network = (share: number, name: string, plugins: (size: number) => Conflist['plugins']) => {
    const size = Math.max(Math.floor((atOnce * share * 2) / 3), 1);
    return { share, size, conflist: { cniVersion: '1.0.0', name, plugins: plugins(size) } };
  };
  return [
    {
      mapsPorts: true,
      contenders: backend === 'iptables' ? contenders : ours,
      ...network(2 / 3, 'soakbridge', (size) => [
        {
          type: 'bridge',
          bridge: 'soak0',
          isDefaultGateway: true,
          ipMasq: true,
          ipMasqBackend: backend,
          hairpinMode: true,
          ipam: ipam(90, size),
        },
        { type: 'portmap', backend, capabilities: { portMappings: true } },
        { type: 'firewall', backend },
        { type: 'bandwidth', ...limits },
      ]),
    },
    {
      mapsPorts: false,
      contenders,
      ...network(1 / 3, 'soakptp', (size) => [
        { type: 'ptp', ipMasq: true, ipam: { ...ipam(91, size), routes } },
      ]),
    },
  ];
}

/** High enough not to slow anybody down, in bits per second and bits. */
const limits = {
  ingressRate: 1_000_000_000,
  ingressBurst: 100_000_000,
  egressRate: 1_000_000_000,
  egressBurst: 100_000_000,
};

/**
 * The port of the host for a pod. Each gets a different one: with the reference plugins, a port whose pod was
 * lost still leads to that pod.
 */
export function hostPortOf(life: number): number {
  return firstHostPort + (life % hostPorts);
}
