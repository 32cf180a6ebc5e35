/** The chains of plugins that are killed and failed. */

import { mkdirSync, writeFileSync } from 'node:fs';
import type { Conflist, PortMapping } from '../support/chain.ts';
import type { Host } from '../support/host.ts';
import { ipJson, until } from '../support/observe.ts';

/** A chain, and the host that it needs. */
export interface Subject {
  readonly network: Conflist;
  readonly capabilities?: { portMappings: PortMapping[] };
  /** Makes, or makes again, what the chain expects of its host. Doing it twice is no error. */
  prepare?(host: Host): Promise<void>;
}

const hostLocal = {
  type: 'host-local',
  ranges: [[{ subnet: '10.31.0.0/24' }], [{ subnet: 'fd00:31::/64' }]],
  routes: [{ dst: '0.0.0.0/0' }],
};

const capabilities = { portMappings: [{ hostPort: 8080, containerPort: 80, protocol: 'tcp' }] };

const tuning = {
  type: 'tuning',
  mtu: 1400,
  allmulti: true,
  sysctl: { 'net.ipv4.conf.IFNAME.arp_filter': '1' },
};

const bandwidth = {
  type: 'bandwidth',
  ingressRate: 1_000_000,
  ingressBurst: 1_000_000,
  egressRate: 1_000_000,
  egressBurst: 1_000_000,
};

/** Every subject by name. Those of {@link guestSubjects} need kinds of interfaces that the kernel may lack. */
export const subjects: Readonly<Record<string, Subject>> = {
  iptables: {
    network: networkOf(
      {
        type: 'bridge',
        bridge: 'br0',
        isGateway: true,
        ipMasq: true,
        ipMasqBackend: 'iptables',
        hairpinMode: true,
        ipam: hostLocal,
      },
      { type: 'portmap', backend: 'iptables', capabilities: { portMappings: true } },
      { type: 'firewall', backend: 'iptables' },
      bandwidth,
      tuning,
    ),
    capabilities,
  },
  nftables: {
    network: networkOf(
      {
        type: 'bridge',
        bridge: 'br0',
        isGateway: true,
        ipMasq: true,
        ipMasqBackend: 'nftables',
        macspoofchk: true,
        ipam: hostLocal,
      },
      { type: 'portmap', backend: 'nftables', capabilities: { portMappings: true } },
      { type: 'firewall', backend: 'nftables' },
    ),
    capabilities,
  },
  ptp: { network: networkOf({ type: 'ptp', ipMasq: true, ipam: hostLocal }, { type: 'sbr' }) },
  macvlan: {
    network: networkOf({ type: 'macvlan', master: 'up0', ipam: hostLocal }),
    prepare: (host) => ensurePair(host, 'up0', 'up1'),
  },
  tap: { network: networkOf({ type: 'tap', ipam: hostLocal }) },
  'host-device': {
    network: networkOf({ type: 'host-device', device: 'dev0', ipam: hostLocal }),
    // A virtual device goes with the sandbox that it is in, unlike a real one. Down, as it is given back.
    prepare: (host) => ensurePair(host, 'dev0', 'dev1', 'down'),
  },
  'host-local': { network: networkOf({ type: 'host-local', ipam: hostLocal }) },
  flannel: {
    network: networkOf({ type: 'flannel' }),
    async prepare(host) {
      mkdirSync(host.file('/run/flannel'), { recursive: true });
      writeFileSync(
        host.file('/run/flannel/subnet.env'),
        'FLANNEL_NETWORK=10.244.0.0/16\nFLANNEL_SUBNET=10.244.1.1/24\nFLANNEL_MTU=1450\nFLANNEL_IPMASQ=true\n',
      );
    },
  },
};

/** Subjects for User Mode Linux. */
export const guestSubjects: Readonly<Record<string, Subject>> = {
  ipvlan: {
    network: networkOf({ type: 'ipvlan', master: 'up0', ipam: hostLocal }),
    prepare: (host) => ensurePair(host, 'up0', 'up1'),
  },
  vlan: {
    network: networkOf({ type: 'vlan', master: 'up0', vlanId: 7, ipam: hostLocal }),
    prepare: (host) => ensurePair(host, 'up0', 'up1'),
  },
  vrf: {
    network: networkOf({ type: 'ptp', ipam: hostLocal }, { type: 'vrf', vrfname: 'blue' }),
  },
  dummy: { network: networkOf({ type: 'dummy', ipam: hostLocal }) },
};

function networkOf(...plugins: Conflist['plugins']): Conflist {
  return { cniVersion: '1.1.0', name: 'proof', plugins };
}

async function ensurePair(host: Host, name: string, peer: string, state = 'up'): Promise<void> {
  let names: string[] = [];
  // The kernel does away with both ends when the namespace of one is gone, but with neither at once.
  await until('both ends are there, or none', async () => {
    names = (await ipJson<{ ifname: string }>(host, 'link')).map(({ ifname }) => ifname);
    return names.includes(name) === names.includes(peer);
  });
  if (names.includes(name)) return;
  await host.run(['ip', 'link', 'add', name, state, 'type', 'veth', 'peer', 'name', peer]);
}
